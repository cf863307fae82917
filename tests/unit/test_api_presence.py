"""Requests that take long end with their client, and with their token."""

import asyncio
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest
from structlog.testing import capture_logs
from tests.builders import always
from tests.fake_foreign import moved, page
from tests.fake_homeserver import Fault, rate_limited
from tests.stage import Stage
from tests.unit.api_stage import lasting_stage
from tests.waiting import Clock, eventually, settled, within

from letta_matrix.access.accounts import Accounts
from letta_matrix.access.authenticator import Authenticator
from letta_matrix.access.principal import Principal, Scope
from letta_matrix.access.secrets import issue
from letta_matrix.app.doors import Doors
from letta_matrix.common.waiting import is_set
from letta_matrix.doors.rest import following
from letta_matrix.doors.rest.event_stream import _PATIENCE, EventStream
from letta_matrix.doors.rest.presence import EVERY
from letta_matrix.matrix.intent import Intent
from letta_matrix.operations.toolbox.registry import Toolbox
from letta_matrix.store.tokens import AccessToken
from letta_matrix.store.turns import Outcome

STREAM = {"Accept": "text/event-stream"}


class Api:
    """The API over a stage, for the holder of one token."""

    def __init__(self, stage: Stage, app: Any, token: AccessToken, secret: str) -> None:
        self.stage, self.app, self.token = stage, app, token
        self.headers = {"Authorization": f"Bearer {secret}"}
        transport = httpx.ASGITransport(self.app)
        self.http = httpx.AsyncClient(
            transport=transport, base_url="http://127.0.0.1", headers=self.headers
        )

    async def say(self, headers: dict[str, str]) -> httpx.Response:
        """Say something to an agent that does not answer."""
        path, body = "/api/v1/agents/agent-1/messages?wait=900", {"message": "hello"}
        return await self.http.post(path, json=body, headers=headers)

    async def revoke(self) -> None:
        assert await self.stage.stores.tokens.revoke(self.token.token_id, time.time())


@pytest.fixture(scope="module")
async def stage(migrated: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Stage]:
    directory, access = tmp_path_factory.mktemp("api"), {"calls_per_minute": 70}
    async with lasting_stage(migrated, directory, 2, access=access) as made:
        yield made


@pytest.fixture(scope="module")
def app(stage: Stage) -> Any:
    doors = Doors(stage.config, stage.parts, lambda: {}, always)
    return doors._make_api()


@pytest.fixture
async def api(stage: Stage, app: Any) -> AsyncGenerator[Api]:
    """The API, with a token of this test's own."""
    secret, token = issue(agent_id="", scopes=frozenset(Scope))
    await stage.stores.tokens.add(token)
    made = Api(stage, app, token, secret)
    yield made
    app.state.services.stopping.clear()
    await made.http.aclose()


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The tokens that were looked up and are good."""
    found: list[str] = []
    identify = Authenticator.identify

    async def looked(self: Authenticator, bearer: str, peer: str = "") -> Principal:
        principal = await identify(self, bearer, peer)
        found.append(bearer)
        return principal

    monkeypatch.setattr(Authenticator, "identify", looked)
    return found


@pytest.fixture
def rests(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long those who follow an answer rest before they look again."""
    found: list[float] = []

    async def rest(event: asyncio.Event, seconds: float) -> bool:
        found.append(seconds)
        return await is_set(event, seconds)

    monkeypatch.setattr(following, "is_set", rest)
    return found


@pytest.mark.parametrize("headers", [STREAM, {}], ids=["stream", "whole"])
async def test_an_answer_is_followed_no_longer_than_the_token_is_good(
    api: Api, looks: list[str], rests: list[float], clock: Clock, headers: dict[str, str]
) -> None:
    clock.stop()
    waiting = asyncio.create_task(api.say(headers))
    await eventually(lambda: len(rests) == 1)
    clock.advance(EVERY)
    await eventually(lambda: len(rests) == 2)
    assert len(looks) == 2, "at the beginning, and once since"
    await settled(waiting)
    await api.revoke()
    clock.advance(EVERY)
    answer = await within(waiting)
    if headers:
        assert answer.text.split("\n\n")[-2].startswith("event: error\n")
        assert "/unauthorized" in answer.text
    else:
        assert answer.status_code == 401


@pytest.fixture
def asking(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What became of the calls of tools, which nobody answers."""
    went: list[str] = []

    async def asks(*_: Any, **__: Any) -> Any:
        went.append("begun")
        try:
            await asyncio.Event().wait()
        finally:
            went.append("ended")

    monkeypatch.setattr(Toolbox, "call", asks)
    return went


@pytest.mark.parametrize(
    ("name", "body"), [("ask_human", {}), ("matrix_other_tools", {"name": "ask_human"})]
)
async def test_what_asks_people_ends_with_its_token(
    api: Api, asking: list[str], looks: list[str], clock: Clock, name: str, body: dict[str, str]
) -> None:
    waiting = asyncio.create_task(api.http.post(f"/api/v1/tools/{name}", json=body))
    await eventually(lambda: asking == ["begun"])
    await clock.until(lambda: len(looks) > 1, step=1)
    await settled(waiting)
    await api.revoke()
    await clock.until(waiting.done, step=1)
    assert (await waiting).status_code == 401
    assert asking == ["begun", "ended"]


async def test_what_asks_people_ends_with_its_client(
    api: Api, asking: list[str], looks: list[str], clock: Clock
) -> None:
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
    request = asyncio.create_task(api.app(scope, receive, send))
    await eventually(lambda: asking == ["begun"])
    await clock.until(lambda: len(looks) > 1, step=1)
    await settled(request)
    gone = True
    await clock.until(request.done, step=1)
    await request
    assert asking == ["begun", "ended"]


async def test_a_client_that_does_not_read_is_given_up(clock: Clock) -> None:
    sending, ended = asyncio.Event(), asyncio.Event()

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
            sending.set()
            await asyncio.Event().wait()

    clock.stop()
    with capture_logs() as logs:
        streaming = asyncio.create_task(EventStream(events())({"type": "http"}, receive, send))
        await within(sending.wait())
        clock.advance(_PATIENCE - 1)
        await settled(streaming)
        clock.advance(1)
        await within(streaming)
    assert ended.is_set()
    told = [one["event"] for one in logs if "client" in one["event"]]
    assert told == ["a client was given up that does not read its events"]


async def test_turns_go_on_after_one_that_is_over(api: Api) -> None:
    await api.stage.idle()
    turns = [await api.stage.turn() for _ in range(3)]
    path = "/api/v1/turns"
    page = (await api.http.get(path, params={"limit": 2})).json()
    assert [one["turn_id"] for one in page["turns"]] == [one.turn_id for one in turns[:2]]
    assert page["next"] == turns[1].turn_id
    await api.stage.stores.turns.finish(turns[1], Outcome.ANSWERED)
    page = (await api.http.get(path, params={"after": page["next"]})).json()
    assert [one["turn_id"] for one in page["turns"]] == [turns[2].turn_id]
    unknown = await api.http.get(path, params={"after": "turn-none"})
    assert unknown.status_code == 422


async def test_recent_messages_count_for_each_room(
    api: Api, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    clock.stop()
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
    async def answered(_: Any, __: str, path: str, *___: Any, **____: Any) -> Any:
        if path == "logout":
            raise aiohttp.ClientConnectionError
        return 200, {"user_id": "@ann:test", "access_token": "syt_x", "joined_rooms": []}

    async def rooms(_: Any) -> list[str]:
        return []

    monkeypatch.setattr(Accounts, "ask", answered)
    monkeypatch.setattr(Intent, "joined_rooms", rooms)
    body = {"homeserver": "", "user_id": "@ann:test", "password": "x"}
    with capture_logs() as logs:
        answer = await api.http.post("/login", json=body)
        assert answer.status_code == 200, answer.text
        await api.app.state.services.logins.close()
    assert "a login was not ended" in [one["event"] for one in logs]


@pytest.mark.parametrize(
    ("fault", "status", "told"),
    [
        (Fault(404, {"errcode": "M_UNRECOGNIZED"}), 401, "takes no passwords"),
        (Fault(405, {"errcode": "M_UNRECOGNIZED"}), 401, "takes no passwords"),
        (Fault(400, {"errcode": "M_UNRECOGNIZED"}), 401, "takes no passwords"),
        (Fault(400, {"errcode": "M_UNKNOWN"}), 401, "takes no passwords"),
        (Fault(403, {"errcode": "M_FORBIDDEN"}), 401, "does not accept this user and password"),
        (Fault(500, {"errcode": "M_UNKNOWN"}), 503, "does not answer now"),
        (moved("https://sso.example.org/login"), 503, "does not answer now"),
        (page(), 503, "does not answer now"),
        (rate_limited(-5), 429, ""),
        (rate_limited(10**16), 429, ""),
    ],
    ids=str,
)
async def test_why_a_login_comes_to_nothing(
    api: Api, clock: Clock, fault: Fault, status: int, told: str
) -> None:
    clock.advance(3600)
    api.stage.fake.fail("POST .*/login", fault)
    body = {"homeserver": "", "user_id": "@ann:test", "password": "x"}
    answer = await clock.through(api.http.post("/login", json=body))
    assert answer.status_code == status, answer.text
    assert told in answer.text
    if status == 429:
        assert 1 <= int(answer.headers["Retry-After"]) <= 300


async def test_who_follows_an_answer_is_told_when_the_bridge_stops(
    api: Api, rests: list[float], clock: Clock
) -> None:
    clock.stop()
    waiting = [asyncio.create_task(api.say(headers)) for headers in (STREAM, {})]
    await eventually(lambda: len(rests) == 2)
    api.app.state.services.stopping.set()
    # By the next look, which is soon: the end of a bridge does not wait long for those who read.
    assert max(rests) <= following._LAST_LOOK < 1
    clock.advance(following._LAST_LOOK)
    streamed, whole = await within(asyncio.gather(*waiting))
    assert "event: error" in streamed.text
    assert "is stopping" in streamed.text
    assert (whole.status_code, whole.headers["Retry-After"]) == (503, "10")


async def test_what_asks_people_ends_when_the_bridge_stops(
    api: Api, asking: list[str], clock: Clock
) -> None:
    clock.stop()
    waiting = asyncio.create_task(api.http.post("/api/v1/tools/ask_human", json={}))
    await eventually(lambda: asking == ["begun"])
    await settled(waiting)
    api.app.state.services.stopping.set()
    answer = await within(waiting)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "10")
    assert "is stopping" in answer.json()["detail"]
    assert asking == ["begun", "ended"]
