"""Whatever arrives at the bridge's doors, it goes on, loses nothing and blocks nothing."""

import asyncio
import secrets
import sqlite3
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from sqlalchemy import text
from tests.integration.bridge_world import (
    DATABASE,
    Json,
    Person,
    Room,
    World,
    config_on,
    deliver,
    event_in,
    lay_database,
    new_agent,
)
from tests.servers import Homeserver, free_port
from tests.waiting import DEADLINE, eventually

from letta_matrix.app.bridge import Bridge
from letta_matrix.common.connections.listening import PortTakenError
from letta_matrix.conversations import notices
from letta_matrix.matrix.content import MARKER
from letta_matrix.runtimes.memory import MemoryRuntime


@pytest.fixture(scope="module")
async def own(world: World) -> Room:
    """The room of an agent for the whole file."""
    return await world.meet()


async def said(ann: Person, room: Room) -> list[str]:
    return await ann.bodies(room.room_id, room.ghost)


async def count(world: World, name: str) -> int:
    """One of the health's counters."""
    return (await world.health())["counters"].get(name, 0)


async def test_strangers_cannot_speak_for_the_homeserver(
    world: World, ann: Person, room: Room
) -> None:
    forged = [event_in(room, ann.user_id, "forged")]
    status, answer = await deliver(world, forged, token="")
    assert (status, answer["errcode"]) == (401, "M_UNAUTHORIZED")
    status, answer = await deliver(world, forged, token="guess")
    assert (status, answer["errcode"]) == (403, "M_FORBIDDEN")
    status, _ = await deliver(world, forged, token="", path="/transactions/")
    assert status == 401
    await ann.send(room.room_id, "real")
    assert await ann.answers(room, 1) == ["echo: real"]


async def test_the_homeserver_reaches_us(world: World) -> None:
    before = await count(world, "pings")
    service = world.config.appservice.id
    url = f"{world.homeserver.url}/_matrix/client/v1/appservice/{service}/ping"
    headers = {"Authorization": f"Bearer {world.homeserver.as_token}"}
    async with world.person.http.post(url, json={"transaction_id": "t"}, headers=headers) as answer:
        assert answer.status == 200
        assert "duration_ms" in await answer.json()
    assert await count(world, "pings") == before + 1


async def test_asking_for_a_user_makes_it_exist(world: World, own: Room) -> None:
    base = f"http://127.0.0.1:{world.homeserver.appservice_port}/_matrix/app/v1/users/"
    headers = {"Authorization": f"Bearer {world.homeserver.hs_token}"}
    async with world.person.http.get(base + quote(own.ghost), headers=headers) as answer:
        assert answer.status == 200
    nobody = quote("@agent_nobody:localhost")
    async with world.person.http.get(base + nobody, headers=headers) as answer:
        assert answer.status == 404


MALFORMED: list[Any] = [
    None,
    {},
    [[]],
    7,
    "event",
    {"event_id": "$1"},
    {"type": "m.room.message", "content": {}},
    {"event_id": {}, "room_id": [], "sender": 7, "type": None, "content": "x"},
    {"event_id": "$\ud800", "room_id": "!\ud800", "sender": "@\ud800", "content": {}},
    {"event_id": "$" + "x" * 100_000, "room_id": "!1", "sender": "@a:b", "content": {}},
]

ODD_FIELDS: list[Json] = [
    {"origin_server_ts": None},
    {"origin_server_ts": "yesterday"},
    {"origin_server_ts": float("nan")},
    {"origin_server_ts": float("inf")},
    {"origin_server_ts": 10**300},
    {"origin_server_ts": -1},
    {"content": {"msgtype": "m.text", "body": "x\ud800y"}},
    {"content": {"msgtype": "m.text", "body": "nul \x00 in it"}},
    {"content": {"msgtype": "m.text", "body": "x", "m.relates_to": [1]}},
    {"content": {"msgtype": "m.text", "body": "x", "m.relates_to": {"m.in_reply_to": 7}}},
    {"unsigned": {"age": "old"}, "state_key": None},
    {"org.example.unknown": {"nested": [[[[]]]]}},
    {"content": {"msgtype": "m.text", "body": "x" * 300_000}},
]


async def test_malformed_events_are_skipped_counted_and_block_nothing(
    world: World, ann: Person, own: Room
) -> None:
    before = await count(world, "events_malformed")
    good = event_in(own, ann.user_id, f"between {secrets.token_hex(4)}")
    assert (await deliver(world, [*MALFORMED, good, *MALFORMED]))[0] == 200
    expected = f"echo: {good['content']['body']}"

    async def answered() -> list[str]:
        return await said(ann, own)

    await ann.watch(own.room_id, answered, lambda bodies: expected in bodies)
    assert await count(world, "events_malformed") - before == 2 * len(MALFORMED)


async def test_events_with_odd_fields_are_taken(world: World, ann: Person, room: Room) -> None:
    events = [event_in(room, ann.user_id) | fields for fields in ODD_FIELDS]
    for event in events:
        assert (await deliver(world, [event]))[0] == 200, event
    last = await ann.send(room.room_id, "and now?")
    await eventually(lambda: world.asked(room)[-1:] and world.asked(room)[-1].message_id == last)
    await world.idle(room.room_id)
    all_ = await ann.said(room)
    answered = {one["content"][MARKER]["in_reply_to"] for one in all_ if not one["live"]}
    assert answered == {last, *(event["event_id"] for event in events)}
    assert all_[-1]["content"]["body"] == "echo: and now?"


async def test_odd_events_for_unknown_rooms_are_taken(world: World, ann: Person) -> None:
    nowhere = Room(new_agent(), "!nowhere:localhost", "@agent_x:localhost")
    deep: Any = "x"
    for _ in range(800):
        deep = [deep]
    events = [event_in(nowhere, ann.user_id) | fields for fields in ODD_FIELDS]
    events.append(event_in(nowhere, ann.user_id, deep=deep, content=None))
    events.append(event_in(nowhere, ann.user_id) | {"unsigned": deep})
    for event in events:
        assert (await deliver(world, [event]))[0] == 200, event


async def test_what_the_homeserver_brings_twice_is_answered_once(
    world: World, ann: Person, room: Room
) -> None:
    event, other = event_in(room, ann.user_id, "one"), event_in(room, ann.user_id, "two")
    for txn_id in ("same", "same", "another"):
        assert (await deliver(world, [event, event], txn_id + room.room_id))[0] == 200
    await asyncio.gather(*(deliver(world, [event, other]) for _ in range(5)))
    await ann.send(room.room_id, "three")
    assert await ann.answers(room, 3) == ["echo: one", "echo: two", "echo: three"]
    assert [one.text for one in world.asked(room)] == ["one", "two", "three"]


async def test_an_event_that_waited_too_long_gets_a_notice(
    world: World, ann: Person, room: Room
) -> None:
    old = event_in(room, ann.user_id, "long ago", origin_server_ts=1_600_000_000_000)
    assert (await deliver(world, [old]))[0] == 200
    assert await ann.answers(room, 1) == [notices.expired(24.0)]
    assert all(one.text != "long ago" for one in world.runtime.asked)


async def test_deep_nesting_from_a_client_blocks_nothing(
    world: World, ann: Person, room: Room
) -> None:
    path = f"/rooms/{quote(room.room_id)}/send/m.room.message/"
    taken = 0
    for depth in (100, 400, 700, 900, 950, 2_000, 20_000):
        nested = "[" * depth + "]" * depth
        body = f'{{"msgtype": "m.text", "body": "deep", "x": {nested}}}'.encode()
        status, _ = await ann.call("PUT", path + secrets.token_hex(4), body)
        taken += status == 200
    await ann.send(room.room_id, "after all that")

    async def answered() -> list[str]:
        return await said(ann, room)

    bodies = await ann.watch(room.room_id, answered, lambda all_: "echo: after all that" in all_)
    assert bodies == ["echo: deep"] * taken + ["echo: after all that"]
    assert taken >= 1


@pytest.fixture
async def locked(world: World) -> AsyncGenerator[sqlite3.Connection]:
    """The database in another's hands, for which the bridge does not wait long."""
    database = world.bridge.app.stores.database
    await database.execute(text("PRAGMA busy_timeout = 100"))
    file = world.config.directory / DATABASE
    other = sqlite3.connect(file, timeout=DEADLINE, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    yield other
    other.close()
    await database.execute(text("PRAGMA busy_timeout = 5000"))


async def test_a_locked_database_acknowledges_nothing_and_recovers(
    world: World, ann: Person, room: Room, locked: sqlite3.Connection
) -> None:
    before = await count(world, "transactions_refused")
    events = [event_in(room, ann.user_id, "while locked")]
    status, answer = await deliver(world, events, "locked")
    assert (status, answer["errcode"]) == (500, "M_UNKNOWN")
    await ann.send(room.room_id, "by the homeserver")

    async def refused() -> int:
        return await count(world, "transactions_refused") - before

    await eventually(refused, lambda times: times >= 2)
    assert world.asked(room) == []
    (told,) = [one for one in (await world.health())["checks"] if one["name"] == "database"]
    assert told["remedy"] == "another program holds it: end that one"
    pings = await count(world, "pings")
    locked.execute("ROLLBACK")
    # It is not left to the homeserver when it tries again.
    await eventually(lambda: count(world, "pings"), lambda found: found > pings)
    await eventually(world.health, lambda health: health["status"] == "ok")
    assert (await deliver(world, events, "locked"))[0] == 200
    texts = await ann.answers(room, 2)
    assert sorted(texts) == ["echo: by the homeserver", "echo: while locked"]


async def test_ports_that_are_taken_are_named(
    world: World, homeserver: Homeserver, tmp_path: Path, ann: Person
) -> None:
    await lay_database(homeserver, tmp_path)
    second = Bridge(config_on(homeserver, tmp_path, ann), [MemoryRuntime()])
    with pytest.raises(PortTakenError, match=f"127.0.0.1:{homeserver.appservice_port}"):
        await second.start()
    taken = {"api": {"port": world.config.api.port}, "appservice": {"port": 1}}
    third = Bridge(config_on(homeserver, tmp_path, ann, **taken), [MemoryRuntime()])
    with pytest.raises(PortTakenError):
        await third.start()
    assert (await world.health())["status"] == "ok"


async def test_a_homeserver_that_does_not_know_us_is_one_clear_line(
    homeserver: Homeserver, tmp_path: Path, ann: Person, world: World
) -> None:
    unknown = {"appservice": {"as_token": "wrong", "port": free_port()}}
    await lay_database(homeserver, tmp_path)
    bridge = Bridge(config_on(homeserver, tmp_path, ann, **unknown), [MemoryRuntime()])
    await bridge.start()
    await eventually(lambda: "registration.yaml" in str(bridge.health.told()["troubles"]))
    assert bridge.health.told()["status"] == "degraded"
    assert not bridge.is_ready()
    await bridge.close()
