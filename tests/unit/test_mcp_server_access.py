"""Who gets to the MCP server over HTTP, and for how long."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
from structlog.testing import capture_logs
from tests.builders import message
from tests.unit.mcp_door import MINE
from tests.unit.mcp_http_door import MODERN, HttpDoor, http_door, lasting_door, rpc
from tests.waiting import Clock, eventually, settled, within

from letta_matrix.access.authenticator import Authenticator, Unauthorized
from letta_matrix.access.principal import Principal
from letta_matrix.doors.mcp import http, lasting_sessions
from letta_matrix.doors.mcp.core import Core
from letta_matrix.store.database import Database, StoreUnavailable

BOT = "@letta:test"
MESSAGES = f"matrix://rooms/{quote(MINE, safe='')}/messages"


@pytest.fixture
async def client() -> AsyncGenerator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as opened:
        yield opened


@pytest.fixture(scope="module")
async def shared(
    migrated: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[HttpDoor]:
    async with lasting_door(migrated, tmp_path_factory.mktemp("door")) as opened:
        yield opened


@pytest.fixture
async def mcp(shared: HttpDoor) -> HttpDoor:
    """The door, with a token of this test's own."""
    shared.door.fake.go.clear()
    return shared.with_token(await shared.door.token())


async def test_the_sdk_is_loaded_for_holders_of_tokens_only(
    tmp_path: Path,
    database: Database,
    client: aiohttp.ClientSession,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loaded = list[Core]()

    async def load(core: Core) -> None:
        loaded.append(core)
        raise StoreUnavailable

    monkeypatch.setattr(Core, "get", load)
    async with http_door(tmp_path, database, client) as mcp:
        for host, known in (("localhost", True), ("anything.example", False)):
            health = await mcp.ask("GET", "/health", Authorization="", Host=host)
            assert health.messages == [{"status": "ok", "known": known}]
        assert (await mcp.ask("POST", "/health")).status == 405
        assert (await mcp.ask("GET", "/.well-known/oauth-protected-resource")).status == 200
        assert (await mcp.ask(Authorization="Bearer lm_000000000000_x")).status == 401
        assert loaded == []
        await mcp.call("echo")
        assert len(loaded) == 1


@pytest.mark.parametrize(
    ("method", "path", "headers", "status", "named"),
    [
        ("POST", "/mcp", {"Authorization": ""}, 401, ("WWW-Authenticate", 'resource_metadata="')),
        ("GET", "/mcp", {"Authorization": "Basic eDp5"}, 401, ("WWW-Authenticate", "Bearer")),
        ("POST", "/mcp", {"Authorization": "Bearer lm_x_y"}, 401, ("WWW-Authenticate", "invalid")),
        ("PUT", "/mcp", {}, 405, ("Allow", "POST, GET, DELETE")),
        ("OPTIONS", "/mcp", {}, 405, ("Allow", "POST")),
        ("GET", "/mcp", {"MCP_Protocol_Version": MODERN}, 405, ("Allow", "POST")),
        ("GET", "/mcp", {}, 400, ("Content-Type", "json")),
        ("DELETE", "/mcp", {"Mcp_Session_Id": "none"}, 404, ("Content-Type", "json")),
        ("POST", "/mcp", {"Host": "evil.example"}, 421, ("Content-Type", "json")),
        ("POST", "/mcp", {"Origin": "https://evil.example"}, 403, ("Content-Type", "json")),
        ("POST", "/", {}, 404, ("Content-Type", "json")),
        ("POST", "/.well-known/oauth-protected-resource/mcp", {}, 405, ("Allow", "GET")),
        ("POST", "/mcp", {"Content_Type": "text/plain"}, 400, ("Content-Type", "")),
        ("POST", "/mcp", {"Accept": "text/html"}, 406, ("Content-Type", "")),
    ],
)
async def test_what_is_refused(
    mcp: HttpDoor,
    method: str,
    path: str,
    headers: dict[str, str],
    status: int,
    named: tuple[str, str],
) -> None:
    before = mcp.sessions()
    answer = await mcp.ask(method, path, b"{}" if method == "POST" else None, **headers)
    assert answer.status == status
    assert named[1] in answer.headers.get(named[0], "")
    assert mcp.sessions() == before


@pytest.mark.parametrize("path", ["", "/mcp"])
async def test_clients_find_out_what_tokens_there_are(mcp: HttpDoor, path: str) -> None:
    document = await mcp.ask(
        "GET", f"/.well-known/oauth-protected-resource{path}", Authorization=""
    )
    assert document.messages[0]["resource"] == f"{mcp.url}/mcp"
    assert "write" in document.messages[0]["scopes_supported"]


async def test_web_pages_of_the_configuration_may_connect(
    tmp_path: Path, database: Database, client: aiohttp.ClientSession
) -> None:
    page = "https://app.example"
    allowed = {"mcp": {"allowed_origins": [page]}}
    async with http_door(tmp_path, database, client, **allowed) as mcp:
        asks = {"Origin": page, "Access_Control_Request_Method": "POST", "Authorization": ""}
        before = await mcp.ask("OPTIONS", **asks)
        assert (before.status, before.headers["Access-Control-Allow-Origin"]) == (200, page)
        begun = await mcp.begin(Origin=page)
        assert "Mcp-Session-Id" in begun.headers["Access-Control-Expose-Headers"]
        assert (await mcp.begin(Origin="https://other.example")).status == 403


async def test_too_many_requests_wait(
    tmp_path: Path, database: Database, client: aiohttp.ClientSession, clock: Clock
) -> None:
    async with http_door(tmp_path, database, client, access={"calls_per_minute": 2}) as mcp:
        clock.stop()
        answers = [await mcp.call("echo") for _ in range(3)]
        assert [answer.status for answer in answers] == [200, 200, 429]
        assert answers[-1].headers["Retry-After"] == "30"
        clock.go()


async def test_a_database_that_is_away_says_when_to_come_again(
    mcp: HttpDoor, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object) -> None:
        raise StoreUnavailable("disk on fire")

    monkeypatch.setattr(Authenticator, "identify", away)
    answer = await mcp.call("echo")
    assert (answer.status, answer.headers["Retry-After"]) == (503, "10")
    assert "disk" not in answer.error["message"]


async def test_a_session_is_for_the_token_that_began_it(mcp: HttpDoor) -> None:
    session = await mcp.session()
    mine, mcp.token = mcp.token, await mcp.door.token()
    for method in ("POST", "GET", "DELETE"):
        stolen = await session.ask(method, rpc("ping", {}) if method == "POST" else None)
        assert (method, stolen.status) == (method, 404)
    mcp.token = mine
    assert (await session.request("ping")).status == 200
    await mcp.door.revoke(mine)
    refused = await session.request("tools/list")
    assert refused.status == 401
    assert "revoked" in refused.headers["WWW-Authenticate"]


@pytest.mark.parametrize("noticed", [True, False])
async def test_a_session_is_told_of_changes_by_its_newest_token(
    mcp: HttpDoor, monkeypatch: pytest.MonkeyPatch, noticed: bool
) -> None:
    identify, older = Authenticator.identify, mcp.token
    expired = set[str]()

    async def renewed(self: Authenticator, bearer: str, peer: str = "") -> Principal:
        if bearer in expired:
            raise Unauthorized("The token has expired.")
        return await identify(self, older if bearer == "newer" else bearer, peer)

    monkeypatch.setattr(Authenticator, "identify", renewed)
    others, arrivals = mcp.door.watches, mcp.door.toolbox.event_bus
    session = await mcp.session()
    assert (await session.request("resources/subscribe", {"uri": MESSAGES})).result == {}
    (watch,) = mcp.door.watches - others
    expired.add(older)
    mcp.token = "newer"
    if noticed:
        arrivals.publish(message(room_id=MINE))
        await within(watch.ended.wait())
        assert (await session.request("resources/subscribe", {"uri": MESSAGES})).result == {}
    else:
        assert (await session.request("ping")).result == {}
    async with session.listen() as news:
        arrivals.publish(message(room_id=MINE))
        arrivals.publish(joined(BOT, "!new:test"))
        told = [(await within(anext(news)))["method"].rpartition("/")[2] for _ in range(2)]
        assert sorted(told) == ["list_changed", "updated"]
        assert (await session.ask("DELETE")).status == 200
        assert [one async for one in news] == []


def joined(who: str, room_id: str) -> dict[str, Any]:
    unsigned = {"prev_content": {"membership": "invite"}}
    fields = {"type": "m.room.member", "state_key": who, "content": {"membership": "join"}}
    return message(room_id=room_id, unsigned=unsigned, **fields)


async def test_a_token_has_so_many_sessions(mcp: HttpDoor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lasting_sessions, "PER_TOKEN", 2)
    first, _ = await mcp.session(), await mcp.session()
    assert (await mcp.begin()).status == 503
    assert (await first.ask("DELETE")).status == 200
    await mcp.session()
    mcp.token = await mcp.door.token()
    await mcp.session()


async def test_a_token_has_so_many_requests_open(
    tmp_path: Path,
    database: Database,
    client: aiohttp.ClientSession,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http, "MOST", 1)
    async with http_door(tmp_path, database, client) as mcp:
        waits = asyncio.create_task(mcp.call("wait"))
        await eventually(lambda: mcp.door.fake.waiting == 1)
        refused = await mcp.call("echo")
        assert (refused.status, refused.headers["Retry-After"]) == (429, "10")
        assert "has 1 requests open" in refused.error["message"]
        other = mcp.with_token(await mcp.door.token())
        assert (await other.call("echo")).status == 200
        mcp.door.fake.go.set()
        assert (await waits).status == 200
        assert (await mcp.call("echo")).status == 200


async def test_a_session_that_nobody_uses_is_put_away(
    tmp_path: Path, database: Database, client: aiohttp.ClientSession, clock: Clock
) -> None:
    async with http_door(tmp_path, database, client, mcp={"idle_timeout": 10}) as mcp:
        session = await mcp.session()
        clock.stop()
        assert (await session.request("ping")).status == 200
        await settled()
        clock.advance(9)
        await settled()
        assert mcp.sessions() == 1
        clock.advance(1)
        await eventually(mcp.sessions, lambda count: count == 0)
        assert (await session.request("ping")).status == 200
        assert mcp.sessions() == 1
        clock.go()


async def test_a_revoked_token_ends_what_is_open(mcp: HttpDoor, clock: Clock) -> None:
    session = await mcp.session()
    kept = mcp.token
    async with session.listen() as news:
        waits = asyncio.create_task(mcp.call("wait"))
        await eventually(lambda: mcp.door.fake.waiting == 1)
        mcp.token = await mcp.door.token()
        other = asyncio.create_task(mcp.call("wait"))
        await eventually(lambda: mcp.door.fake.waiting == 2)
        await mcp.door.revoke(kept)
        await clock.until(waits.done)
        assert (await waits).status == 401
        assert [one async for one in news] == []
    assert mcp.door.fake.waiting == 1
    mcp.door.fake.go.set()
    assert (await other).result["structuredContent"] == {"text": "gone"}


async def test_an_answer_is_not_for_a_revoked_token(mcp: HttpDoor, clock: Clock) -> None:
    clock.stop()
    waits = asyncio.create_task(mcp.call("wait"))
    await eventually(lambda: mcp.door.fake.waiting == 1)
    await mcp.door.revoke(mcp.token)
    clock.advance(0.1)
    mcp.door.fake.go.set()
    assert (await waits).status == 401


async def test_a_token_holds_from_when_it_was_looked_at(
    mcp: HttpDoor, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What follows may take long: the SDK is loaded, or the look itself waits."""
    clock.stop()
    admit = Authenticator.admit

    async def admit_slowly(self: Authenticator, *asked: Any) -> Principal:
        principal = await admit(self, *asked)
        await mcp.door.revoke(mcp.token)
        clock.advance(0.1)
        return principal

    monkeypatch.setattr(Authenticator, "admit", admit_slowly)
    assert (await mcp.call("echo")).status == 401


async def test_a_defect_for_one_token_does_not_save_another(
    mcp: HttpDoor, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    identify, failing = Authenticator.identify, mcp.token
    failed = list[str]()

    async def identify_some(self: Authenticator, bearer: str, peer: str = "") -> Principal:
        if bearer == failing and mcp.door.fake.waiting:
            failed.append(bearer)
            raise RuntimeError("a defect")
        return await identify(self, bearer, peer)

    monkeypatch.setattr(Authenticator, "identify", identify_some)
    goes_on = asyncio.create_task(mcp.call("wait"))
    with capture_logs() as logs:
        await clock.until(lambda: len(failed) > 1)
    assert {one["event"] for one in logs} == {"a token of open requests is not checked"}
    other = mcp.with_token(await mcp.door.token())
    ends = asyncio.create_task(other.call("wait"))
    await eventually(lambda: mcp.door.fake.waiting == 2)
    await mcp.door.revoke(other.token)
    await clock.until(ends.done)
    assert (await ends).status == 401
    mcp.door.fake.go.set()
    assert (await goes_on).status == 200


async def test_open_streams_do_not_hold_up_the_end(
    tmp_path: Path, database: Database, client: aiohttp.ClientSession, clock: Clock
) -> None:
    async with AsyncExitStack() as opened:
        mcp = await opened.enter_async_context(http_door(tmp_path, database, client))
        session = await mcp.session()
        async with session.listen() as news:
            calling = asyncio.create_task(session.request("tools/call", {"name": "wait"}))
            await eventually(lambda: mcp.door.fake.waiting == 1)
            clock.stop()
            closing = asyncio.create_task(opened.aclose())
            assert [one async for one in news] == []
        await clock.until(closing.done, step=0.1)
        await closing
    assert mcp.door.fake.waiting == 0
    await asyncio.gather(calling, return_exceptions=True)


async def test_who_comes_at_the_end_is_told_so(
    tmp_path: Path, database: Database, client: aiohttp.ClientSession
) -> None:
    async with http_door(tmp_path, database, client) as mcp:
        assert (await mcp.call("echo")).status == 200
        await mcp.app.close()
        assert (await mcp.call("echo")).status == 503


async def test_two_hundred_clients_at_once(mcp: HttpDoor) -> None:
    async def use(number: int) -> str:
        arguments = {"text": str(number)}
        if number % 2:
            answer = await mcp.call("echo", **arguments)
        else:
            session = await mcp.session()
            params = {"name": "echo", "arguments": arguments}
            answer = await session.request("tools/call", params)
        return answer.result["structuredContent"]["text"]

    before = mcp.sessions()
    heard = await asyncio.gather(*(use(number) for number in range(200)))
    assert heard == [str(number) for number in range(200)]
    assert mcp.sessions() == before + 100
