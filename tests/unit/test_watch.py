"""The homeserver's going and coming is noticed without asking it."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncGenerator
from itertools import pairwise
from pathlib import Path

import pytest
from tests.fake_homeserver import FakeHomeserver, failing
from tests.waiting import Clock, eventually, settled, within

from letta_matrix.common.connections.known_servers import KnownServer, note_process
from letta_matrix.matrix import watch
from letta_matrix.matrix.homeserver import Homeserver
from letta_matrix.matrix.pacing import Pacer
from letta_matrix.matrix.route import Route
from letta_matrix.matrix.watch import ServerState, until_back, until_gone


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[ServerState]:
    """What each look at the homeserver found."""
    found, look = list[ServerState](), watch.look

    async def noted(homeserver: Homeserver) -> ServerState:
        presence = await look(homeserver)
        found.append(presence)
        return presence

    monkeypatch.setattr(watch, "look", noted)
    return found


@contextlib.asynccontextmanager
async def watching(homeserver: Homeserver) -> AsyncGenerator[asyncio.Task[ServerState]]:
    task = asyncio.create_task(until_gone(homeserver))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_restart_is_noticed(
    fake: FakeHomeserver, homeserver: Homeserver, looks: list[ServerState], clock: Clock
) -> None:
    async with watching(homeserver) as gone:
        await eventually(lambda: fake.connections)
        await settled(gone)
        await fake.go_away()
        assert await within(gone) is ServerState.AWAY
    back = asyncio.create_task(until_back(homeserver))
    await eventually(lambda: len(looks) > 1)
    assert not back.done()
    await fake.start()
    await clock.until(back.done)
    assert await back is ServerState.AWAY


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells who listens")
async def test_a_restart_is_noticed_where_the_port_is_held(tmp_path: Path) -> None:
    """Nobody is refused there: who connects waits for the next one."""
    connections = list[asyncio.StreamWriter]()
    server = await asyncio.start_server(lambda _, one: connections.append(one), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    note_process(tmp_path / "pid", os.getpid())
    known = KnownServer("homeserver", port, tmp_path / "pid", print)
    client = Homeserver(f"http://127.0.0.1:{port}", "x", Pacer(1), Route([known]))
    async with watching(client) as gone:
        await eventually(lambda: connections)
        await settled(gone)
        note_process(tmp_path / "pid", os.getppid())
        connections.pop().close()
        assert await within(gone) is ServerState.AWAY
    await client.close()
    server.close()


async def test_failed_requests_alone_are_no_outage(
    fake: FakeHomeserver, homeserver: Homeserver, looks: list[ServerState]
) -> None:
    async with watching(homeserver) as gone:
        await eventually(lambda: fake.connections)
        for times in (1, 2):
            homeserver.outage.set()
            await eventually(lambda: looks, [ServerState.HERE].__mul__(times).__eq__)
            await settled(gone)
            assert not homeserver.outage.is_set()


async def test_failed_requests_lead_to_a_closer_look(
    fake: FakeHomeserver, homeserver: Homeserver, clock: Clock
) -> None:
    fake.fail("versions", failing(502), failing(502))
    homeserver.outage.set()
    assert await within(until_gone(homeserver)) is ServerState.AWAY
    back = asyncio.create_task(until_back(homeserver))
    await clock.until(back.done)
    assert await back is ServerState.AWAY


async def test_a_homeserver_that_keeps_us_waiting_is_slow(
    fake: FakeHomeserver, homeserver: Homeserver, clock: Clock
) -> None:
    released = fake.hold("versions")
    homeserver.outage.set()
    clock.stop()
    for number, watcher in enumerate((until_gone, until_back), 1):
        task = asyncio.create_task(watcher(homeserver))
        await eventually(lambda: len(fake.matching("versions")), number.__eq__)
        clock.advance(watch._ANSWER_TIMEOUT - 0.1)
        await settled(task)
        # aiohttp rounds up to a whole second.
        clock.advance(1.1)
        if watcher is until_back:
            released.set()
            await clock.until(task.done)
        assert await within(task) is ServerState.SLOW


async def test_a_server_that_hangs_up_at_once_is_not_hammered(clock: Clock) -> None:
    connections = list[float]()

    async def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(clock.now())
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    client = Homeserver(f"http://127.0.0.1:{port}", "x", Pacer(1))
    clock.stop()
    async with watching(client):
        await clock.until(lambda: len(connections) > 5)
    await client.close()
    server.close()
    await server.wait_closed()
    pauses = [later - earlier for earlier, later in pairwise(connections)]
    least = [0.4, 0.8, 1.6, 3.2, 6.4]
    assert [pause >= shortest for pause, shortest in zip(pauses, least, strict=True)] == [True] * 5


async def test_one_that_hangs_is_noticed_though_nothing_is_asked_of_it(
    fake: FakeHomeserver, homeserver: Homeserver, looks: list[ServerState], clock: Clock
) -> None:
    clock.stop()
    async with watching(homeserver) as gone:
        await eventually(lambda: fake.connections)
        clock.advance(14)
        await settled(gone)
        assert not looks
        clock.advance(1)
        await eventually(lambda: looks == [ServerState.HERE])
        clock.go()
        fake.hold("versions")
        await clock.until(gone.done, step=1)
        assert await gone is ServerState.SLOW
