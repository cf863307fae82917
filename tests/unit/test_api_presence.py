"""Requests that take long end with their client, and with their token."""

import asyncio
import time
from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest
from structlog.testing import capture_logs
from tests.fake_homeserver import FakeHomeserver
from tests.stage import Stage

from letta_matrix.access.refusals import TooOften
from letta_matrix.access.secrets import issue
from letta_matrix.api import event_stream, presence
from letta_matrix.api.compat_login import Logins
from letta_matrix.api.event_stream import EventStream
from letta_matrix.api.problems import Problem
from letta_matrix.doors import Doors
from letta_matrix.matrix.intent import Intent
from letta_matrix.store.tokens import AccessToken
from letta_matrix.toolbox.principal import Scope
from letta_matrix.toolbox.registry import Toolbox


class Api:
    """The API over a stage, for the holder of one token."""

    def __init__(self, stage: Stage, token: AccessToken, secret: str) -> None:
        self.stage, self.token = stage, token
        doors = Doors(stage.config, stage.parts, lambda: {}, lambda: True, lambda _: "")
        self.app: Any = doors._make_api()
        self.headers = {"Authorization": f"Bearer {secret}"}
        transport = httpx.ASGITransport(self.app)
        self.http = httpx.AsyncClient(
            transport=transport, base_url="http://127.0.0.1", headers=self.headers
        )

    async def revoke(self) -> None:
        assert await self.stage.stores.tokens.revoke(self.token.token_id, time.time())


@pytest.fixture
async def api(
    fake: FakeHomeserver, database_file: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncGenerator[Api]:
    monkeypatch.setattr(presence, "EVERY", 0.05)
    stage = Stage(fake, database_file, access={"calls_per_minute": 70})
    await stage.open()
    for number in (1, 2):
        await stage.add(number)
    secret, token = issue(agent_id="", scopes=frozenset(Scope))
    await stage.stores.tokens.add(token)
    made = Api(stage, token, secret)
    yield made
    await made.http.aclose()
    await stage.close()


async def test_an_answer_is_followed_no_longer_than_the_token_is_good(api: Api) -> None:
    path, body = "/api/v1/agents/agent-1/messages?wait=20", {"message": "hello"}
    stream = {"Accept": "text/event-stream"}
    requests = [api.http.post(path, json=body, headers=headers) for headers in (stream, {})]
    waiting = [asyncio.create_task(one) for one in requests]
    await asyncio.sleep(0.3)
    assert not any(one.done() for one in waiting)
    await api.revoke()
    async with asyncio.timeout(5):
        streamed, whole = await asyncio.gather(*waiting)
    assert streamed.text.split("\n\n")[-2].startswith("event: error\n")
    assert "/unauthorized" in streamed.text
    assert whole.status_code == 401


@pytest.fixture
def asking(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What became of the calls of tools, which nobody answers."""
    went: list[str] = []

    async def asks(*_: Any, **__: Any) -> Any:
        went.append("begun")
        try:
            await asyncio.sleep(20)
        finally:
            went.append("ended")

    monkeypatch.setattr(Toolbox, "call", asks)
    return went


async def test_what_asks_people_ends_with_its_token(api: Api, asking: list[str]) -> None:
    waiting = asyncio.create_task(api.http.post("/api/v1/tools/ask_human", json={}))
    await asyncio.sleep(0.3)
    assert asking == ["begun"]
    await api.revoke()
    async with asyncio.timeout(5):
        assert (await waiting).status_code == 401
    assert asking == ["begun", "ended"]


async def test_what_asks_people_ends_with_its_client(api: Api, asking: list[str]) -> None:
    gone = False

    async def receive() -> Any:
        if gone:
            return {"type": "http.disconnect"}
        if asking:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": b"{}", "more_body": False}

    async def send(_: Any) -> None:
        pass

    raw = [(name.lower().encode(), value.encode()) for name, value in api.headers.items()]
    path = "/api/v1/tools/ask_human"
    scope: dict[str, Any] = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [*raw, (b"host", b"127.0.0.1"), (b"content-type", b"application/json")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }
    async with asyncio.timeout(5):
        request = asyncio.create_task(api.app(scope, receive, send))
        await asyncio.sleep(0.3)
        assert asking == ["begun"]
        gone = True
        await request
    assert asking == ["begun", "ended"]


async def test_a_client_that_does_not_read_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "_PATIENCE", 0.05)
    ended = asyncio.Event()

    async def events() -> AsyncGenerator[bytes]:
        try:
            while True:
                yield b": it goes on\n\n"
        finally:
            ended.set()

    async def receive() -> Any:
        await asyncio.Event().wait()

    async def send(sent: Any) -> None:
        if sent["type"] == "http.response.body":
            await asyncio.Event().wait()

    with capture_logs() as logs:
        async with asyncio.timeout(2):
            await EventStream(events())({"type": "http"}, receive, send)
    assert ended.is_set()
    assert [one["event"] for one in logs] == ["a client was given up that does not read its events"]


async def test_turns_go_on_after_one_that_is_over(api: Api) -> None:
    turns = [await api.stage.turn() for _ in range(3)]
    path, waiting = "/api/v1/turns", list(reversed(turns))
    api.app.state.services = replace(api.app.state.services, unfinished=lambda: waiting)
    page = (await api.http.get(path, params={"limit": 2})).json()
    assert [one["turn_id"] for one in page["turns"]] == [one.turn_id for one in turns[:2]]
    assert page["next"] == turns[1].turn_id
    waiting.remove(turns[1])
    page = (await api.http.get(path, params={"after": page["next"]})).json()
    assert [one["turn_id"] for one in page["turns"]] == [turns[2].turn_id]
    unknown = await api.http.get(path, params={"after": "turn-none"})
    assert unknown.status_code == 422


async def test_recent_messages_count_for_each_room(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    async def called(_: Any, __: Any, name: str, arguments: Any, **___: Any) -> Any:
        if name == "matrix_read_room":
            read.append(arguments["room_id"])
            return {"messages": []}
        start = arguments["after"]
        rooms = [{"room_id": f"!{number}:test"} for number in range(start, start + 20)]
        return {"rooms": rooms, "next": start + 20}

    monkeypatch.setattr(Toolbox, "call", called)
    assert (await api.http.get("/messages/recent")).status_code == 200
    assert len(read) == 50
    assert (await api.http.get("/messages/recent")).status_code == 429
    assert len(read) == 50


async def test_a_login_is_good_though_it_cannot_be_ended(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def answered(_: Any, __: Any, ___: str, path: str, *____: Any, **_____: Any) -> Any:
        if path == "logout":
            raise aiohttp.ClientConnectionError
        return 200, {"user_id": "@ann:test", "access_token": "syt_x", "joined_rooms": []}

    async def rooms(_: Any) -> list[str]:
        return []

    monkeypatch.setattr(Logins, "_request", answered)
    monkeypatch.setattr(Intent, "joined_rooms", rooms)
    body = {"homeserver": "", "user_id": "@ann:test", "password": "x"}
    with capture_logs() as logs:
        answer = await api.http.post("/login", json=body)
    assert answer.status_code == 200, answer.text
    assert "a login was not ended" in [one["event"] for one in logs]


async def test_tries_are_counted_in_any_case_and_for_each_peer(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refused(*_: Any, **__: Any) -> Any:
        return 403, {}

    monkeypatch.setattr(Logins, "_request", refused)
    logins: Logins = api.app.state.logins

    async def refuses(error: type[Exception], user: str, peer: str) -> None:
        with pytest.raises(error):
            await logins.login(user, "wrong", peer)

    for user in ("@ann:test", "@Ann:test", "ANN", "@aNN:test", "@anN:test"):
        await refuses(Problem, user, "10.0.0.1")
    await refuses(TooOften, "@ann:test", "10.0.0.1")
    await refuses(Problem, "@ann:test", "10.0.0.2")


async def test_who_follows_an_answer_is_told_when_the_bridge_stops(api: Api) -> None:
    path, body = "/api/v1/agents/agent-1/messages?wait=20", {"message": "hello"}
    stream = {"Accept": "text/event-stream"}
    requests = [api.http.post(path, json=body, headers=headers) for headers in (stream, {})]
    waiting = [asyncio.create_task(one) for one in requests]
    await asyncio.sleep(0.3)
    assert not any(one.done() for one in waiting)
    api.app.state.services.stopping.set()
    async with asyncio.timeout(0.9):
        streamed, whole = await asyncio.gather(*waiting)
    assert "event: error" in streamed.text
    assert "is stopping" in streamed.text
    assert (whole.status_code, whole.headers["Retry-After"]) == (503, "10")


async def test_what_asks_people_ends_when_the_bridge_stops(api: Api, asking: list[str]) -> None:
    waiting = asyncio.create_task(api.http.post("/api/v1/tools/ask_human", json={}))
    await asyncio.sleep(0.3)
    assert asking == ["begun"]
    api.app.state.services.stopping.set()
    async with asyncio.timeout(0.9):
        answer = await waiting
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "10")
    assert "is stopping" in answer.json()["detail"]
    assert asking == ["begun", "ended"]
