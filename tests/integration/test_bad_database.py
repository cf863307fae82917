"""A database that is locked or full: nothing is acknowledged that was not stored."""

import asyncio
import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import text
from tests.integration.bridge_world import (
    Person,
    World,
    bridge_on,
    deliver,
    event_in,
    new_person,
)
from tests.scripts import obey
from tests.servers import Homeserver
from tests.waiting import eventually

from letta_matrix.runtimes.memory import MemoryRuntime


@pytest.fixture(scope="module")
async def ann(homeserver: Homeserver) -> Person:
    return await new_person(homeserver)


async def test_a_locked_database_acknowledges_nothing_and_recovers(
    homeserver: Homeserver, tmp_path: Path, ann: Person
) -> None:
    async with bridge_on(homeserver, tmp_path, ann, MemoryRuntime(script=obey)) as world:
        room = await world.meet()
        await world.ready()
        await _impatient(world)
        events = [event_in(room, ann.user_id, "while locked")]
        other = sqlite3.connect(tmp_path / "letta-matrix.db", isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        status, answer = await deliver(world, events, "locked")
        assert (status, answer["errcode"]) == (500, "M_UNKNOWN")
        await ann.send(room.room_id, "by the homeserver")
        await asyncio.sleep(1)
        assert world.runtime.asked == []
        other.execute("ROLLBACK")
        other.close()
        assert (await deliver(world, events, "locked"))[0] == 200
        texts = await ann.answers(room, 2)
        assert sorted(texts) == ["echo: by the homeserver", "echo: while locked"]


async def test_a_full_disk_acknowledges_nothing_and_recovers(
    homeserver: Homeserver, tmp_path: Path, ann: Person
) -> None:
    async with bridge_on(homeserver, tmp_path, ann, MemoryRuntime(script=obey)) as world:
        room = await world.meet()
        await world.ready()
        await _limit_pages(world, 0)
        events = [event_in(room, ann.user_id, "x" * 60_000) for _ in range(10)]
        assert (await deliver(world, events, "full"))[0] == 500
        await asyncio.sleep(0.5)
        assert world.runtime.asked == []
        await _limit_pages(world, 1_000_000)
        assert (await deliver(world, events, "full"))[0] == 200
        await eventually(world.health, lambda health: health["counters"].get("turns_done") == 10)
        assert len(world.runtime.asked) == 10


async def test_a_turn_that_meets_a_locked_database_is_answered_once(
    homeserver: Homeserver, tmp_path: Path, ann: Person
) -> None:
    async with bridge_on(homeserver, tmp_path, ann, MemoryRuntime(script=obey)) as world:
        room = await world.meet()
        await world.ready()
        await _impatient(world)
        await ann.send(room.room_id, "slow 1")
        await eventually(world.health, lambda health: health["turns_waiting"] == 1)
        await asyncio.sleep(0.5)
        other = sqlite3.connect(tmp_path / "letta-matrix.db", isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        await asyncio.sleep(2.5)
        other.execute("ROLLBACK")
        other.close()
        assert await ann.answers(room, 1) == ["echo: slow 1"]
        await asyncio.sleep(0.5)
        assert await ann.bodies(room.room_id, room.ghost) == ["echo: slow 1"]
        assert len(world.runtime.asked) == 1


async def _impatient(world: World) -> None:
    """Shorten how long the bridge's connections wait for a lock."""
    await world.bridge._stores.database.execute(text("PRAGMA busy_timeout = 100"))


async def _limit_pages(world: World, more: int) -> None:
    """Let the database grow by so many pages at most, on the connections in use."""
    database = world.bridge._stores.database
    pages = await database.read(lambda db: db.execute(text("PRAGMA page_count")).scalar_one())
    await database.execute(text(f"PRAGMA max_page_count = {pages + more}"))
