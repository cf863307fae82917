"""Whatever arrives at the bridge's doors, it goes on, loses nothing and blocks nothing."""

import asyncio
import secrets
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from tests.integration.bridge_world import (
    Json,
    Person,
    Room,
    World,
    bridge_on,
    config_on,
    deliver,
    event_in,
    new_agent,
    new_person,
)
from tests.scripts import obey
from tests.servers import Homeserver
from tests.waiting import eventually

from letta_matrix.bridge import Bridge
from letta_matrix.conversations import notices
from letta_matrix.runtimes.memory import MemoryRuntime
from letta_matrix.web.listening import PortTakenError


@pytest.fixture(scope="module")
async def ann(homeserver: Homeserver) -> Person:
    return await new_person(homeserver)


@pytest.fixture(scope="module")
async def world(
    homeserver: Homeserver, ann: Person, tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[World]:
    directory, runtime = tmp_path_factory.mktemp("bad"), MemoryRuntime(script=obey)
    async with bridge_on(homeserver, directory, ann, runtime) as running:
        yield running


@pytest.fixture(scope="module")
async def room(world: World) -> Room:
    return await world.meet()


async def said(ann: Person, room: Room) -> list[str]:
    return await ann.bodies(room.room_id, room.ghost)


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
    assert "echo: real" in await ann.answers(room, 1)
    assert "echo: forged" not in await said(ann, room)


async def test_the_homeserver_reaches_us(world: World) -> None:
    before = (await world.health())["counters"]["pings"]
    service = world.config.appservice.id
    url = f"{world.homeserver.url}/_matrix/client/v1/appservice/{service}/ping"
    headers = {"Authorization": f"Bearer {world.homeserver.as_token}"}
    async with world.person.http.post(url, json={"transaction_id": "t"}, headers=headers) as answer:
        assert answer.status == 200
        assert "duration_ms" in await answer.json()
    assert (await world.health())["counters"]["pings"] == before + 1


async def test_asking_for_a_user_makes_it_exist(world: World, room: Room) -> None:
    base = f"http://127.0.0.1:{world.homeserver.appservice_port}/_matrix/app/v1/users/"
    headers = {"Authorization": f"Bearer {world.homeserver.hs_token}"}
    async with world.person.http.get(base + quote(room.ghost), headers=headers) as answer:
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
    {"content": {"msgtype": "m.text", "body": "x" * 300_000}},
    {"unsigned": {"age": "old"}, "state_key": None},
    {"org.example.unknown": {"nested": [[[[]]]]}},
]


async def test_malformed_events_are_skipped_counted_and_block_nothing(
    world: World, ann: Person, room: Room
) -> None:
    before = (await world.health())["counters"]
    good = event_in(room, ann.user_id, f"between {secrets.token_hex(4)}")
    assert (await deliver(world, [*MALFORMED, good, *MALFORMED]))[0] == 200
    expected = f"echo: {good['content']['body']}"

    async def answered() -> list[str]:
        return await said(ann, room)

    await eventually(answered, lambda bodies: expected in bodies)
    after = (await world.health())["counters"]
    assert after["events_malformed"] - before.get("events_malformed", 0) == 2 * len(MALFORMED)


@pytest.mark.parametrize("fields", ODD_FIELDS, ids=lambda fields: repr(fields)[:50])
async def test_events_with_odd_fields_are_taken(world: World, ann: Person, fields: Json) -> None:
    room = await world.meet()
    event = event_in(room, ann.user_id) | fields
    assert (await deliver(world, [event]))[0] == 200
    assert len(await ann.answers(room, 1)) >= 1
    await ann.send(room.room_id, "and now?")

    async def answered() -> list[str]:
        return await said(ann, room)

    await eventually(answered, lambda bodies: bodies[-1] == "echo: and now?")


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


async def test_what_the_homeserver_brings_twice_is_answered_once(world: World, ann: Person) -> None:
    room = await world.meet()
    event, other = event_in(room, ann.user_id, "one"), event_in(room, ann.user_id, "two")
    for txn_id in ("same", "same", "another"):
        assert (await deliver(world, [event, event], txn_id + room.room_id))[0] == 200
    await asyncio.gather(*(deliver(world, [event, other]) for _ in range(5)))
    assert await ann.answers(room, 2) == ["echo: one", "echo: two"]
    await asyncio.sleep(0.5)
    assert await said(ann, room) == ["echo: one", "echo: two"]
    asked = [one.text for one in world.runtime.asked if one.agent_id == room.agent.agent_id]
    assert asked == ["one", "two"]


async def test_an_event_that_waited_too_long_gets_a_notice(world: World, ann: Person) -> None:
    room = await world.meet()
    old = event_in(room, ann.user_id, "long ago", origin_server_ts=1_600_000_000_000)
    assert (await deliver(world, [old]))[0] == 200
    assert await ann.answers(room, 1) == [notices.expired(24.0)]
    assert all(one.text != "long ago" for one in world.runtime.asked)


async def test_deep_nesting_from_a_client_blocks_nothing(world: World, ann: Person) -> None:
    room = await world.meet()
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

    bodies = await eventually(answered, lambda all_: "echo: after all that" in all_)
    assert bodies == ["echo: deep"] * taken + ["echo: after all that"]
    assert taken >= 1


async def test_ports_that_are_taken_are_named(
    world: World, homeserver: Homeserver, tmp_path: Path, ann: Person
) -> None:
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
    from tests.servers import free_port

    unknown = {"appservice": {"as_token": "wrong", "port": free_port()}}
    bridge = Bridge(config_on(homeserver, tmp_path, ann, **unknown), [MemoryRuntime()])
    await bridge.start()
    for _ in range(100):
        if bridge.health()["troubles"]:
            break
        await asyncio.sleep(0.05)
    assert "registration.yaml" in str(bridge.health()["troubles"])
    assert bridge.health()["status"] == "degraded"
    assert not bridge.is_ready()
    await bridge.close()
