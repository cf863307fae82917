"""The homeserver's going and coming is noticed without asking it."""

import asyncio
import time

import pytest
from tests.fake_homeserver import FakeHomeserver, Fault
from tests.waiting import eventually

from letta_matrix.matrix.homeserver import Homeserver
from letta_matrix.matrix.watch import Presence, until_back, until_gone


async def test_a_restart_is_noticed(fake: FakeHomeserver, homeserver: Homeserver) -> None:
    gone = asyncio.create_task(until_gone(homeserver))
    await asyncio.sleep(0.1)
    assert not gone.done()
    await fake.stop()
    async with asyncio.timeout(3):
        assert await gone is Presence.AWAY
    back = asyncio.create_task(until_back(homeserver))
    await asyncio.sleep(0.3)
    assert not back.done()
    await fake.start()
    async with asyncio.timeout(3):
        assert await back is Presence.AWAY


async def test_failed_requests_alone_are_no_outage(
    fake: FakeHomeserver, homeserver: Homeserver
) -> None:
    gone = asyncio.create_task(until_gone(homeserver))
    await asyncio.sleep(0.05)
    homeserver.outage.set()
    await eventually(lambda: fake.matching("versions"))
    await asyncio.sleep(0.1)
    assert not gone.done()
    assert not homeserver.outage.is_set()
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)


@pytest.mark.parametrize(
    ("status", "pause", "presence"), [(502, 0.0, Presence.AWAY), (200, 1.0, Presence.SLOW)]
)
async def test_failed_requests_lead_to_a_closer_look(
    fake: FakeHomeserver,
    homeserver: Homeserver,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    pause: float,
    presence: Presence,
) -> None:
    monkeypatch.setattr("letta_matrix.matrix.watch._ANSWER_TIMEOUT", 0.2)
    fake.slow["versions"] = pause
    fake.fail("versions", *[Fault(status, {})] * 2)
    homeserver.outage.set()
    async with asyncio.timeout(3):
        assert await until_gone(homeserver) is presence
        fake.slow.clear()
        assert await until_back(homeserver) in (presence, Presence.HERE)


async def test_watching_costs_no_requests(fake: FakeHomeserver, homeserver: Homeserver) -> None:
    gone = asyncio.create_task(until_gone(homeserver))
    await asyncio.sleep(0.3)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
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
            await until_gone(client)
    await client.close()
    server.close()
    await server.wait_closed()
    assert 2 <= len(connections) <= 4
