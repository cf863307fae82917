"""A bridge whose database is on a PostgreSQL server."""

import asyncio
from collections.abc import AsyncGenerator, Generator
from pathlib import Path

import pytest
from aiohttp import ClientError
from tests.cut_connections import Relay
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
)
from tests.postgres import PASSWORD, PostgresServer
from tests.scripts import obey
from tests.servers import Homeserver
from tests.waiting import eventually

from letta_matrix.app import bridge
from letta_matrix.runtimes.memory import MemoryRuntime
from letta_matrix.store.postgres_engine import PostgresEngine


@pytest.fixture(scope="module")
def section(postgres: PostgresServer) -> Generator[dict[str, str]]:
    """Names a database of these tests' own."""
    name = postgres.migrated()
    yield postgres.settings_for(name)
    postgres.drop(name)


@pytest.fixture(scope="module")
async def world(
    homeserver: Homeserver,
    ann: Person,
    section: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncGenerator[World]:
    folder, runtime = tmp_path_factory.mktemp("on-postgres"), MemoryRuntime(script=obey)
    async with bridge_on(homeserver, folder, ann, runtime, database=section) as world:
        yield world


async def test_a_restart_goes_on(
    homeserver: Homeserver, ann: Person, tmp_path: Path, postgres: PostgresServer
) -> None:
    section = postgres.settings_for(postgres.create())
    runtime, agents = MemoryRuntime(script=obey), [new_agent(f"Agent {n}") for n in range(2)]
    async with bridge_on(homeserver, tmp_path, ann, runtime, database=section) as world:
        rooms = await asyncio.gather(*map(world.meet, agents))
        await ann.send(rooms[0].room_id, "hello")
        assert await ann.answers(rooms[0], 1) == ["echo: hello"]
        await ann.send(rooms[1].room_id, "hang")
        await eventually(lambda: world.asked(rooms[1]))
        await world.ready()
    async with bridge_on(homeserver, tmp_path, ann, runtime, database=section) as world:
        health = await world.health()
        assert health["homeserver_writes"] == health["counters"]["pings"] + 1
        await ann.send(rooms[0].room_id, "remember me?")
        assert (await ann.answers(rooms[0], 2))[1] == "echo: remember me?"


def _nothing(*_: object) -> None:
    pass


async def test_all_begins_anew_where_nobody_can_tell_what_is_stored(
    homeserver: Homeserver,
    ann: Person,
    tmp_path: Path,
    postgres: PostgresServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(PostgresEngine, "patience", 0.1)
    # This process has its own.
    monkeypatch.setattr(bridge, "configure_logging", _nothing)
    monkeypatch.setattr(asyncio.get_running_loop(), "add_signal_handler", _nothing)
    event = {
        "type": "m.room.message",
        "event_id": "$waits",
        "room_id": "!of-nobody:localhost",
        "sender": ann.user_id,
        "origin_server_ts": 0,
        "content": {"msgtype": "m.text", "body": "hello"},
    }
    async with Relay(postgres.port) as relay:
        section = postgres.settings_for(postgres.migrated())
        section["url"] = section["url"].replace(str(postgres.port), str(relay.port))
        config = config_on(homeserver, tmp_path, ann, database=section)
        running = asyncio.create_task(bridge.run(config))
        ready = f"http://127.0.0.1:{config.api.port}/ready"

        async def is_ready() -> bool:
            try:
                async with ann.http.get(ready) as response:
                    return response.status == 200
            except ClientError:
                return False

        await eventually(is_ready)
        relay.cut_at, relay.heard, relay.shut = b"COMMIT", True, True
        headers = {"Authorization": f"Bearer {homeserver.hs_token}"}
        url = f"http://127.0.0.1:{homeserver.appservice_port}/_matrix/app/v1/transactions/waits"
        async with ann.http.put(url, json={"events": [event]}, headers=headers) as response:
            assert response.status == 500
        relay.let_in()

        async def has_begun_anew() -> bool:
            try:
                async with ann.http.get(ready.replace("ready", "health")) as response:
                    replica = dict((await response.json())["replica"])
            except ClientError:
                return False
            return replica["state"] == "active" and replica["epoch"] == 2

        await eventually(has_begun_anew)
        await eventually(is_ready)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_messages_are_answered_in_their_order(world: World, ann: Person, room: Room) -> None:
    for number in range(5):
        await ann.send(room.room_id, f"number {number}")
    assert await ann.answers(room, 5) == [f"echo: number {number}" for number in range(5)]
    assert not list(world.config.directory.glob("*.db*"))


async def test_a_null_character_is_no_poison(world: World, ann: Person, room: Room) -> None:
    events = [event_in(room, ann.user_id, "one\0two"), event_in(room, ann.user_id, "three")]
    status, _ = await deliver(world, events)
    assert status == 200
    assert await ann.answers(room, 2) == ["echo: onetwo", "echo: three"]


@pytest.mark.parametrize("part", ["thread", "id"])
async def test_what_is_too_long_for_an_index_is_no_poison(
    world: World, ann: Person, room: Room, part: str
) -> None:
    # Nothing that can be made shorter.
    long = "$" + "".join(chr(0x4E00 + number * 7919 % 20_000) for number in range(9_000))
    relation: Json = {"rel_type": "m.thread", "event_id": long}
    event = event_in(room, ann.user_id, "hello")
    if part == "thread":
        event["content"]["m.relates_to"] = relation
    else:
        event["event_id"] = long
    status, _ = await deliver(world, [event, event_in(room, ann.user_id, "and this?")])
    assert status == 200
    await eventually(lambda: [one.text for one in world.asked(room)][-1:] == ["and this?"])
    assert (await world.health())["status"] == "ok"


async def test_what_is_wrong_with_it_is_told(
    world: World, ann: Person, room: Room, postgres: PostgresServer
) -> None:
    postgres.stop()
    try:
        status, _ = await deliver(world, [event_in(room, ann.user_id, "while it is away")], "away")
        assert status == 500
        (told,) = [one for one in (await world.health())["checks"] if one["name"] == "database"]
        assert "Connection refused" in told["says"]
        assert told["remedy"].startswith("start PostgreSQL there")
        assert PASSWORD not in str(await world.health())
        await ann.send(room.room_id, "by the homeserver")
    finally:
        postgres.start()
    await eventually(world.health, lambda health: health["status"] == "ok")
    assert await ann.answers(room, 1) == ["echo: by the homeserver"]
