"""Sessions of MCP clients that do not begin anew go on when the bridge was restarted."""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import aiohttp
import httpx2
import pytest
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from tests.builders import message
from tests.unit.mcp_door import MINE
from tests.unit.mcp_http_door import MODERN, OLDER, HttpDoor, HttpSession, http_door, rpc
from tests.unit.test_mcp_server_access import BOT, MESSAGES, joined
from tests.waiting import DEADLINE, eventually, within

from letta_matrix.doors.mcp import kept_subscriptions, lasting_sessions
from letta_matrix.doors.mcp.kept_subscriptions import KeptSubscriptions
from letta_matrix.doors.mcp.session_ids import SessionIds
from letta_matrix.store.database import Database
from letta_matrix.store.meta import Meta

CALL = {"name": "echo", "arguments": {"text": "hi"}}


@pytest.fixture
async def mcp(tmp_path: Path, database: Database) -> AsyncGenerator[HttpDoor]:
    async with (
        aiohttp.ClientSession() as client,
        http_door(tmp_path, database, client) as opened,
    ):
        yield opened


@pytest.mark.parametrize("version", OLDER)
async def test_a_session_goes_on_after_a_restart(mcp: HttpDoor, version: str) -> None:
    session = await mcp.session(version)
    await mcp.restart()
    assert mcp.sessions() == 0
    called = await session.request("tools/call", CALL)
    assert called.result["structuredContent"] == {"text": "hi"}
    assert mcp.sessions() == 1
    assert (await session.request("tools/list")).status == 200
    assert mcp.sessions() == 1


async def test_the_official_client_goes_on(mcp: HttpDoor) -> None:
    headers = {"Authorization": f"Bearer {mcp.token}"}
    async with httpx2.AsyncClient(headers=headers, timeout=DEADLINE) as http:
        transport = streamable_http_client(f"{mcp.url}/mcp", http_client=http)
        async with Client(transport, mode="legacy") as client:
            assert client.session.protocol_version != MODERN
            for _ in range(2):
                result = await client.call_tool("echo", {"text": "hi"})
                assert result.structured_content == {"text": "hi"}
                await mcp.restart()
    assert mcp.sessions() == 0


async def test_a_stream_that_is_opened_again_brings_news(mcp: HttpDoor) -> None:
    session = await mcp.session()
    await mcp.restart()
    arrivals = mcp.door.toolbox.event_bus
    async with session.listen() as news:
        arrivals.publish(joined(BOT, "!new:test"))
        assert (await within(anext(news)))["method"] == "notifications/resources/list_changed"
        subscribed = await session.request("resources/subscribe", {"uri": MESSAGES})
        assert subscribed.result == {}
        arrivals.publish(message(room_id=MINE))
        assert (await within(anext(news)))["method"] == "notifications/resources/updated"


async def test_what_a_session_has_subscribed_to_is_kept(mcp: HttpDoor, database: Database) -> None:
    session = await mcp.session()
    for uri in (MESSAGES, "matrix://agents"):
        assert (await session.request("resources/subscribe", {"uri": uri})).result == {}
    assert (await session.request("resources/unsubscribe", {"uri": "matrix://agents"})).result == {}
    # Another process knows it, too.
    assert await KeptSubscriptions(Meta(database)).of(session.session_id) == {MINE: MESSAGES}
    for told in (True, False):
        await mcp.restart()
        arrivals = mcp.door.toolbox.event_bus
        async with session.listen() as news:
            if not told:
                mcp.door.fake.rooms.remove(MINE)
            arrivals.publish(message(room_id=MINE))
            if told:
                heard = await within(anext(news))
                assert heard["params"]["uri"] == MESSAGES
            else:
                # It was left while nobody saw.
                await eventually(lambda: mcp.door.fake.read[-1:] == [MINE])
                arrivals.publish(joined(BOT, "!new:test"))
                heard = await within(anext(news))
                assert heard["method"] == "notifications/resources/list_changed"


async def test_the_latest_sessions_are_kept(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_subscriptions, "_MOST", 2)
    kept = KeptSubscriptions(Meta(database))
    for one, topic in (("a", "1"), ("b", "1"), ("a", "2"), ("c", "1"), ("c", "1")):
        await kept.keep(one, {topic: "uri"})
    for known in (kept, KeptSubscriptions(Meta(database))):
        assert [await known.of(one) for one in "abc"] == [{"2": "uri"}, {}, {"1": "uri"}]
    await kept.keep("a", {})
    assert await KeptSubscriptions(Meta(database)).of("a") == {}


async def test_many_requests_at_once_take_it_up_once(mcp: HttpDoor) -> None:
    session = await mcp.session()
    await mcp.restart()
    calls = [session.ask(data=rpc("tools/call", CALL, number)) for number in range(20)]
    assert [answer.status for answer in await asyncio.gather(*calls)] == [200] * 20
    assert mcp.sessions() == 1


async def test_what_was_ended_does_not_come_back(mcp: HttpDoor) -> None:
    session = await mcp.session()
    await mcp.restart()
    assert (await session.ask("DELETE")).status == 200
    for method, data in (("POST", rpc("ping", {})), ("GET", None), ("DELETE", None)):
        assert (await session.ask(method, data)).status == 404
    assert mcp.sessions() == 0


async def test_only_the_most_recent_ends_are_remembered(
    mcp: HttpDoor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lasting_sessions, "_ENDED", 1)
    sessions = [await mcp.session() for _ in range(2)]
    for session in sessions:
        assert (await session.ask("DELETE")).status == 200
    assert [(await one.request("ping")).status for one in sessions] == [200, 404]


@pytest.mark.parametrize("session_id", ["", "x", "a.b", "é.ü", "." * 500, "0" * 32])
async def test_no_session_can_be_made_up(mcp: HttpDoor, session_id: str) -> None:
    made_up = HttpSession(mcp, session_id or " ", OLDER[-1])
    assert (await made_up.request("ping")).status == 404
    assert mcp.sessions() == 0


async def test_another_token_does_not_take_it_up(mcp: HttpDoor) -> None:
    session = await mcp.session()
    mine, mcp.token = mcp.token, await mcp.door.token()
    await mcp.restart()
    for method, data in (("POST", rpc("ping", {})), ("GET", None), ("DELETE", None)):
        assert (await session.ask(method, data)).status == 404
    mcp.token = mine
    assert (await session.request("ping")).status == 200


async def test_a_client_may_begin_anew_and_name_its_old_session(mcp: HttpDoor) -> None:
    session = await mcp.session()
    await mcp.restart()
    stale = {"Mcp_Session_Id": session.session_id}
    again = await mcp.begin(**stale)
    assert (again.status, again.headers["Mcp-Session-Id"]) == (200, session.session_id)
    for old in ("made-up", "0" * 32, " "):
        assert (await mcp.begin(Mcp_Session_Id=old)).status == 200
    assert (await session.ask("DELETE")).status == 200
    fresh = await mcp.begin(**stale)
    assert fresh.headers["Mcp-Session-Id"] != session.session_id
    mcp.token = await mcp.door.token()
    others = await mcp.begin(**stale)
    assert others.headers["Mcp-Session-Id"] not in (session.session_id, fresh.headers)


async def test_sessions_that_are_taken_up_count(
    mcp: HttpDoor, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions = [await mcp.session() for _ in range(2)]
    monkeypatch.setattr(lasting_sessions, "PER_TOKEN", 1)
    await mcp.restart()
    assert [(await one.request("ping")).status for one in sessions] == [200, 404]
    assert (await sessions[0].ask("DELETE")).status == 200
    assert (await sessions[1].request("ping")).status == 200


def test_names_tell_whose_they_are() -> None:
    ids = SessionIds("secret")
    made = ids.make("token:1")
    assert made.isascii()
    assert made.isprintable()
    assert ids.make("token:1") != made
    assert SessionIds("secret").is_of(made, "token:1")
    assert not ids.is_of(made, "token:2")
    assert not SessionIds("another").is_of(made, "token:1")
    nonce, _, seal = made.partition(".")
    assert not ids.is_of(f"x{nonce}.{seal}", "token:1")
