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
from letta_matrix.common.waiting import ended
from letta_matrix.config import Config
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
        await world.ready()
    async with bridge_on(homeserver, tmp_path, ann, runtime, database=section) as world:
        health = await world.health()
        assert health["homeserver_writes"] == health["counters"]["pings"] + 1
        await ann.send(rooms[1].room_id, "hang")
        await eventually(lambda: world.asked(rooms[1]))
    async with bridge_on(homeserver, tmp_path, ann, runtime, database=section):
        await ann.send(rooms[0].room_id, "remember me?")
        assert (await ann.answers(rooms[0], 2))[1] == "echo: remember me?"


def _nothing(*_: object) -> None:
    pass


async def _health(config: Config, person: Person) -> Json | None:
    """What it tells; None while nobody is there."""
    url = f"http://127.0.0.1:{config.api.port}/health"
    try:
        async with person.http.get(url) as response:
            return dict(await response.json())
    except ClientError:
        return None


@pytest.fixture
async def relayed(
    homeserver: Homeserver,
    ann: Person,
    tmp_path: Path,
    postgres: PostgresServer,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncGenerator[tuple[Config, Relay]]:
    """A whole bridge, whose way to its database is a test's to cut."""
    # This process has its own.
    monkeypatch.setattr(bridge, "configure_logging", _nothing)
    monkeypatch.setattr(asyncio.get_running_loop(), "add_signal_handler", _nothing)
    async with Relay(postgres.port) as relay:
        section = postgres.settings_for(postgres.migrated())
        section["url"] = section["url"].replace(str(postgres.port), str(relay.port))
        config = config_on(homeserver, tmp_path, ann, database=section)
        running = asyncio.create_task(bridge.run(config))
        try:
            yield config, relay
        finally:
            await ended(running)


async def test_all_begins_anew_where_nobody_can_tell_what_is_stored(
    homeserver: Homeserver,
    ann: Person,
    relayed: tuple[Config, Relay],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config, relay = relayed
    monkeypatch.setattr(PostgresEngine, "patience", 0.1)
    event = {
        "type": "m.room.message",
        "event_id": "$waits",
        "room_id": "!of-nobody:localhost",
        "sender": ann.user_id,
        "origin_server_ts": 0,
        "content": {"msgtype": "m.text", "body": "hello"},
    }

    async def epoch() -> int:
        """Of who acts; 0: nobody does."""
        told = await _health(config, ann)
        return int(told["replica"]["epoch"]) if told is not None and told["ready"] else 0

    first = await eventually(epoch)
    # Its own commit, not that of a lease that is renewed meanwhile.
    relay.cut_after, relay.cut_at, relay.heard, relay.shut = b"waits", b"COMMIT", True, True
    headers = {"Authorization": f"Bearer {homeserver.hs_token}"}
    url = f"http://127.0.0.1:{homeserver.appservice_port}/_matrix/app/v1/transactions/waits"
    async with ann.http.put(url, json={"events": [event]}, headers=headers) as response:
        assert response.status == 500
    relay.let_in()
    await eventually(epoch, first.__lt__)


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
