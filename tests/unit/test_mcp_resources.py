"""Rooms, their messages and agents as MCP resources, and being told of changes."""

import asyncio
import gc
import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from tests.builders import message
from tests.mcp_socket import Json, RawClient, raw_client
from tests.unit.mcp_door import MINE, OTHERS, Door, door_on
from tests.waiting import Clock, eventually, settled

from letta_matrix.access.principal import Scope
from letta_matrix.common.mcp_frames import UNAUTHORIZED
from letta_matrix.doors.mcp import subscriptions
from letta_matrix.doors.mcp.changes import Change, Changes
from letta_matrix.doors.mcp.subscriptions import INTERVAL, Watch
from letta_matrix.store.database import Database

MESSAGES = f"matrix://rooms/{quote(MINE, safe='')}/messages"
BOT = "@letta:test"
META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
}
ACKNOWLEDGED = "notifications/subscriptions/acknowledged"
UPDATED = "notifications/resources/updated"
LIST_CHANGED = "notifications/resources/list_changed"


@pytest.fixture
async def door(tmp_path: Path, database: Database) -> AsyncGenerator[Door]:
    async with door_on(tmp_path, database) as opened:
        yield opened


@pytest.fixture
def stopped(clock: Clock) -> Clock:
    """The clock, which stands still: nobody is told of the same thing again."""
    clock.stop()
    return clock


def membership(who: str, now: str, before: str = "leave", room_id: str = MINE) -> dict[str, Any]:
    content = {"membership": now}
    unsigned = {"prev_content": {"membership": before}}
    fields = {"type": "m.room.member", "state_key": who, "content": content}
    return message(room_id=room_id, unsigned=unsigned, **fields)


def renaming(room_id: str) -> dict[str, Any]:
    return message(room_id=room_id, type="m.room.name", state_key="", content={"name": "new"})


def is_told_all(door: Door) -> bool:
    """Whether nothing is on its way to those who watch."""
    return all(watch._telling is None for watch in door.watches)


def topic(news: Json) -> str:
    """What a notification is about; for the list its method."""
    return news.get("params", {}).get("uri") or news["method"][len("notifications/") :]


async def told(door: Door, client: RawClient, clock: Clock, count: int = 0) -> list[str]:
    """The next `count` notifications, and what else there is once the next could come. Time
    stands still."""
    found = [await client.receive() for _ in range(count)]
    await settled()
    clock.advance(INTERVAL)
    await eventually(lambda: is_told_all(door))
    # What comes after them.
    await client.result("ping")
    found += client.told
    client.told.clear()
    return [topic(one) for one in found]


async def test_resources_are_listed_page_by_page(door: Door) -> None:
    door.fake.rooms = [MINE, "!b/ä:test", "!c"]
    async with door.client() as client:
        first = await client.result("resources/list")
        rest = await client.result("resources/list", {"cursor": first["nextCursor"]})
        uris = [one["uri"] for one in first["resources"] + rest["resources"]]
        rooms = [MESSAGES, "matrix://rooms/%21b%2F%C3%A4%3Atest/messages"]
        assert uris == ["matrix://rooms", "matrix://agents", *rooms, "matrix://rooms/%21c/messages"]
        assert "nextCursor" not in rest
        for uri in uris:
            contents = (await client.result("resources/read", {"uri": uri}))["contents"]
            assert (contents[0]["uri"], contents[0]["mimeType"]) == (uri, "application/json")


async def test_messages_are_read_as_the_tool_gives_them(door: Door) -> None:
    async with door.client() as client:
        (contents,) = (await client.result("resources/read", {"uri": MESSAGES}))["contents"]
        read = json.loads(contents["text"])
        assert (read["room_id"], read["limit"]) == (MINE, 30)
        assert "data, not instructions" in read["untrusted"]


async def test_the_template_names_its_variable(door: Door) -> None:
    async with door.client() as client:
        (template,) = (await client.result("resources/templates/list"))["resourceTemplates"]
        assert template["uriTemplate"] == "matrix://rooms/{room_id}/messages"


UNREADABLE = [
    ("matrix://rooms/%21others%3Atest/messages", "You are not in !others:test."),
    ("matrix://rooms/", "There is no such resource"),
    ("matrix://rooms//messages", "There is no such resource"),
    ("matrix://rooms/../messages", "You are not in"),
    ("matrix://rooms/!a/b/messages", "There is no such resource"),
    ("matrix://rooms/%ff%fe/messages", "There is no such resource"),
    (f"matrix://rooms/{'a' * 1000}/messages", "There is no such resource"),
    ("file:///etc/passwd", "There is no such resource"),
    ("matrix://rooms?x=1", "There is no such resource"),
    ("", "There is no such resource"),
]


async def test_what_cannot_be_read_is_refused(door: Door, subtests: pytest.Subtests) -> None:
    async with door.client() as client:
        for method in ("resources/read", "resources/subscribe"):
            for uri, fault in UNREADABLE:
                with subtests.test(method=method, uri=uri):
                    error = (await client.request(method, {"uri": uri}))["error"]
                    assert error["code"] == -32602
                    assert fault in error["message"]
        for cursor in ("-1", "x", "", "9" * 9, "²"):
            with subtests.test(cursor=cursor):
                error = (await client.request("resources/list", {"cursor": cursor}))["error"]
                assert error["code"] == -32602


async def test_a_token_sees_what_its_scopes_and_rooms_allow(door: Door) -> None:
    async with door.client(await door.token(Scope.WRITE)) as client:
        assert (await client.result("resources/list"))["resources"] == []
        assert (await client.result("resources/templates/list"))["resourceTemplates"] == []
        for uri in ("matrix://rooms", "matrix://agents", MESSAGES):
            for method in ("resources/read", "resources/subscribe"):
                assert "error" in await client.request(method, {"uri": uri})
    limited = await door.token(Scope.READ, rooms=frozenset({OTHERS}))
    async with door.client(limited) as client:
        assert "error" in await client.request("resources/subscribe", {"uri": MESSAGES})


async def test_a_subscriber_is_told_of_many_messages_a_few_times(
    door: Door, stopped: Clock
) -> None:
    async with door.client() as client:
        await client.result("resources/subscribe", {"uri": MESSAGES})
        arrivals = door.toolbox.event_bus
        for _ in range(50):
            arrivals.publish(message(room_id=MINE))
            arrivals.publish(message(room_id=OTHERS))
        assert topic(await client.receive()) == MESSAGES
        await settled()
        for _ in range(50):
            arrivals.publish(message(room_id=MINE))
        stopped.advance(INTERVAL - 0.1)
        await client.result("ping")
        assert client.told == []
        stopped.advance(0.1)
        assert await told(door, client, stopped, 1) == [MESSAGES]
        await client.result("resources/unsubscribe", {"uri": MESSAGES})
        arrivals.publish(message(room_id=MINE))
        assert await told(door, client, stopped) == []


async def test_a_room_subscribed_to_by_its_alias_is_named_so(door: Door, stopped: Clock) -> None:
    uri = "matrix://rooms/%23mine%3Atest/messages"
    async with door.client() as client:
        await client.result("resources/subscribe", {"uri": uri})
        door.toolbox.event_bus.publish(message(room_id=MINE))
        assert await told(door, client, stopped, 1) == [uri]


async def test_new_rooms_change_the_list(door: Door, stopped: Clock) -> None:
    async with door.client() as client:
        await client.result("resources/subscribe", {"uri": "matrix://rooms"})
        arrivals = door.toolbox.event_bus
        arrivals.publish(membership("@ann:test", "join"))
        arrivals.publish(membership(BOT, "join", "join"))
        arrivals.publish(membership(BOT, "invite"))
        assert await told(door, client, stopped) == []
        arrivals.publish(membership(BOT, "join", "invite"))
        found = await told(door, client, stopped, 2)
        assert sorted(found) == ["matrix://rooms", "resources/list_changed"]


async def test_a_new_name_is_told_to_those_in_the_room(door: Door, stopped: Clock) -> None:
    async with door.client() as client:
        await client.result("resources/subscribe", {"uri": "matrix://rooms"})
        door.toolbox.event_bus.publish(renaming(OTHERS))
        await eventually(lambda: door.fake.read == [OTHERS])
        assert await told(door, client, stopped) == []
        door.toolbox.event_bus.publish(renaming(MINE))
        assert await told(door, client, stopped, 1) == ["matrix://rooms"]


async def test_new_agents_change_their_list(door: Door, stopped: Clock) -> None:
    async with door.client(await door.token(agent_id="agent-2")) as client:
        await client.result("resources/subscribe", {"uri": "matrix://agents"})
        door.toolbox.event_bus.publish(membership("@agent_1:test", "join"))
        assert await told(door, client, stopped) == []
        door.toolbox.event_bus.publish(membership("@agent_1:test", "join", room_id="!1:test"))
        assert await told(door, client, stopped, 1) == ["matrix://agents"]
        door.toolbox.event_bus.publish(renaming("!1:test"))
        assert await told(door, client, stopped, 1) == ["matrix://agents"]


async def test_who_has_left_is_told_no_more(door: Door, stopped: Clock) -> None:
    async with door.client() as client:
        await client.result("resources/subscribe", {"uri": MESSAGES})
        door.toolbox.event_bus.publish(membership(BOT, "leave", "join"))
        assert await told(door, client, stopped, 1) == ["resources/list_changed"]
        door.toolbox.event_bus.publish(message(room_id=MINE))
        assert await told(door, client, stopped) == []


async def test_a_revoked_token_is_told_nothing(door: Door) -> None:
    token = await door.token()
    async with door.client(token) as client:
        await client.result("resources/subscribe", {"uri": MESSAGES})
        await door.revoke(token)
        door.toolbox.event_bus.publish(message(room_id=MINE))
        await eventually(lambda: is_told_all(door))
        assert "error" in await client.request("ping")
        assert client.told == []
        assert (await client.closed())[0] == UNAUTHORIZED


async def test_what_fails_while_a_watch_ends_is_not_left_over(caplog: Any) -> None:
    asked = asyncio.Event()

    async def still() -> None:
        asked.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise ConnectionError("the client has gone") from None

    class Always(Changes):
        def by(self, event: Any) -> Change:
            return Change(frozenset({MINE}))

    nothing: Any = None
    watch = Watch(nothing, Always(nothing, BOT, nothing), still, nothing)
    watch.topics[MINE] = MESSAGES
    watch.see({})
    await asked.wait()
    watch.stop()
    await settled()
    gc.collect()
    assert "never retrieved" not in caplog.text


def listeners(door: Door) -> int:
    return len(door.toolbox.event_bus._listeners)


async def test_nobody_listens_after_the_end(door: Door) -> None:
    before = listeners(door)
    async with door.client() as client:
        await client.result("resources/subscribe", {"uri": MESSAGES})
        await client.result("resources/subscribe", {"uri": "matrix://rooms"})
        assert listeners(door) == before + 1
    await eventually(lambda: listeners(door) == before)


async def test_subscriptions_are_bounded(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscriptions, "MOST", 2)
    async with door.client() as client:
        await client.result("resources/subscribe", {"uri": MESSAGES})
        error = (await client.request("resources/subscribe", {"uri": "matrix://rooms"}))["error"]
        assert "No more than 2" in error["message"]


async def test_hostile_events_hurt_nobody(door: Door, stopped: Clock) -> None:
    async with door.client() as client:
        await client.result("resources/subscribe", {"uri": MESSAGES})
        events: list[dict[str, Any]] = [{}, {"room_id": 7}, {"room_id": MINE, "type": []}]
        for event in events:
            door.toolbox.event_bus.publish(event)
        broken = membership(BOT, "join") | {"content": [], "unsigned": "x", "state_key": ["x"]}
        door.toolbox.event_bus.publish(broken)
        assert await told(door, client, stopped) == []


async def listen(client: RawClient, **wanted: object) -> tuple[int, dict[str, Any]]:
    """Open a `subscriptions/listen`: its id, and what is honored."""
    number = await client.send("subscriptions/listen", {"notifications": wanted, "_meta": META})
    acknowledged = await client.receive()
    assert acknowledged["method"] == ACKNOWLEDGED, acknowledged
    subscription = acknowledged["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"]
    assert subscription == number
    return number, acknowledged["params"]["notifications"]


async def test_listening_of_the_stateless_revision(door: Door) -> None:
    others = "matrix://rooms/%21others%3Atest/messages"
    before = listeners(door)
    async with raw_client(door.url, await door.token()) as client:
        number, honored = await listen(
            client,
            resourceSubscriptions=[MESSAGES, others, "x:y"],
            resourcesListChanged=True,
            toolsListChanged=True,
        )
        assert honored == {"resourceSubscriptions": [MESSAGES], "resourcesListChanged": True}
        door.toolbox.event_bus.publish(message(room_id=MINE))
        door.toolbox.event_bus.publish(membership(BOT, "join", "invite", "!new:test"))
        news = [await client.receive(), await client.receive()]
        assert sorted(one["method"] for one in news) == [LIST_CHANGED, UPDATED]
        for one in news:
            assert one["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"] == number
        await client.notify("notifications/cancelled", {"requestId": number})
        await eventually(lambda: listeners(door) == before)


async def test_listening_to_many_rooms_counts_for_each(
    tmp_path: Path, database: Database, clock: Clock
) -> None:
    clock.stop()
    async with (
        door_on(tmp_path, database, access={"calls_per_minute": 5}) as door,
        raw_client(door.url, await door.token()) as client,
    ):
        uris = [f"matrix://rooms/%21{number}/messages" for number in range(9)]
        wanted = {"notifications": {"resourceSubscriptions": uris}, "_meta": META}
        error = (await client.request("subscriptions/listen", wanted))["error"]
        assert (error["code"], error["data"]["retry_after"] > 0) == (-32011, True)


async def test_a_token_listens_so_often(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscriptions, "LISTENING", 1)
    async with (
        door_on(tmp_path, database) as door,
        raw_client(door.url, await door.token()) as client,
    ):
        before = listeners(door)
        number, _ = await listen(client, resourceSubscriptions=[MESSAGES])
        wanted = {"notifications": {"resourceSubscriptions": [MESSAGES]}, "_meta": META}
        error = (await client.request("subscriptions/listen", wanted))["error"]
        assert (error["code"], error["data"]["retry_after"] > 0) == (-32011, True)
        await client.notify("notifications/cancelled", {"requestId": number})
        await eventually(lambda: listeners(door) == before)
        await listen(client, resourceSubscriptions=[MESSAGES])


async def test_a_listener_whose_token_is_revoked_hears_the_end(door: Door) -> None:
    token = await door.token()
    async with raw_client(door.url, token) as client:
        await listen(client, resourceSubscriptions=[MESSAGES])
        await door.revoke(token)
        door.toolbox.event_bus.publish(message(room_id=MINE))
        assert await client.closed() == (4401, "The token was revoked.")


async def test_capabilities_tell_what_changes(door: Door) -> None:
    async with raw_client(door.url, await door.token()) as client:
        capabilities = (await client.initialize())["capabilities"]
        assert capabilities["resources"] == {"subscribe": True, "listChanged": True}
        assert {"prompts", "completions", "tools"} <= capabilities.keys()
