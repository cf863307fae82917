"""The homeserver's going and coming is noticed without asking it."""

import asyncio
import time

import pytest
from tests.fake_homeserver import FakeHomeserver

from letta_matrix.matrix.homeserver import Homeserver
from letta_matrix.matrix.watch import homeserver_returned


async def test_a_restart_is_noticed(fake: FakeHomeserver, homeserver: Homeserver) -> None:
    returned = asyncio.create_task(homeserver_returned(homeserver))
    await asyncio.sleep(0.1)
    assert not returned.done()
    await fake.stop()
    await asyncio.sleep(0.6)
    assert not returned.done()
    await fake.start()
    async with asyncio.timeout(3):
        await returned


async def test_failed_requests_tell_of_an_outage(
    fake: FakeHomeserver, homeserver: Homeserver
) -> None:
    returned = asyncio.create_task(homeserver_returned(homeserver))
    await asyncio.sleep(0.05)
    homeserver.outage.set()
    async with asyncio.timeout(1):
        await returned
    assert not homeserver.outage.is_set()


async def test_watching_costs_no_requests(fake: FakeHomeserver, homeserver: Homeserver) -> None:
    returned = asyncio.create_task(homeserver_returned(homeserver))
    await asyncio.sleep(0.3)
    returned.cancel()
    await asyncio.gather(returned, return_exceptions=True)
    assert fake.requests == []


async def test_a_server_that_hangs_up_at_once_is_not_hammered() -> None:
    connections = list[float]()

    async def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(time.monotonic())
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    from letta_matrix.matrix.pacing import Pacer

    client = Homeserver(f"http://127.0.0.1:{port}", "x", Pacer(1))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1.5):
            await homeserver_returned(client)
    await client.close()
    server.close()
    await server.wait_closed()
    assert 2 <= len(connections) <= 4
