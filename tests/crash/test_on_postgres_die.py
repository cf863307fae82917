"""The same on PostgreSQL: SIGKILL to the bridge, and to its database."""

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from tests.crash.bridges import Bridges
from tests.crash.checks import (
    Task,
    Words,
    asked,
    assert_answered_once,
    assert_done_once,
    assert_goes_on,
    growth,
    tell_and_die,
)
from tests.crash.conftest import Build
from tests.crash.points import ENDING_POINTS
from tests.postgres import PostgresServer
from tests.servers import LettaServer
from tests.stub_model import StubModel
from tests.waiting import eventually

from letta_matrix.matrix.reactions import ALLOW


@pytest.fixture(scope="module")
async def bridges(
    build: Build,
    house: Bridges,
    app_server: LettaServer,
    stub_model: StubModel,
) -> AsyncGenerator[Bridges]:
    """A house whose database is on a server."""
    await house.stop()
    await house.delete_agents()
    runtime = {"type": "app_server", "url": app_server.url}
    house = build("crash-postgres", runtime, stub_model, on_postgres=True)
    await house.write_config()
    yield house
    await house.stop()
    await house.delete_agents()
    await house.keeper.end(5)


@pytest.mark.parametrize(
    "point",
    ["admitted, not committed", "end frozen, not committed"],
)
async def test_killed_in_mid_turn(bridges: Bridges, point: str) -> None:
    words = Words.held()
    await bridges.start()
    room = await bridges.new_thread()
    event_id = await tell_and_die(bridges, room, words, point)
    await bridges.start()
    if point not in ENDING_POINTS:
        bridges.steps.finish(words.text)
    await assert_goes_on(bridges, room, (event_id, words))


async def test_killed_while_asking(bridges: Bridges, tmp_path: Path) -> None:
    task, point = Task.new(tmp_path), "question frozen, not sent"
    await bridges.start()
    room = await bridges.new_thread()
    bridges.set_trap(point, task.text)
    event_id = await bridges.say(room, task.text)
    await bridges.dead(point)
    await bridges.start()
    await bridges.person.react(room.room_id, await asked(bridges, room), ALLOW)
    await assert_done_once(bridges, room, event_id, task)


async def test_the_database_dies_in_mid_turn(bridges: Bridges, postgres: PostgresServer) -> None:
    words, later = Words.held(), Words.quick()
    await bridges.start()
    room = await bridges.new_thread()
    event_id = await bridges.say(room, words.text)
    await growth(bridges, room, words)
    postgres.stop("immediate")
    try:
        bridges.steps.finish(words.text)
        later_id = await bridges.say(room, later.text)
        await eventually(lambda: "cannot be written" in bridges.log(), what="it is noticed")
    finally:
        postgres.start()
    await assert_answered_once(bridges, room, (event_id, words), (later_id, later))
