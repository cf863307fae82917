"""Accepting connections: how many there may be, and who has to go."""

import asyncio
import errno
import os
import resource
import socket
from collections.abc import AsyncGenerator, Collection
from typing import Any

import pytest
from structlog.testing import capture_logs
from tests.waiting import Clock, eventually, settled

from letta_matrix.common.connections import descriptors
from letta_matrix.common.connections.admission import Accepted, Connections
from letta_matrix.common.connections.listener import Listener, bound


class Talker(Accepted):
    """Is idle, sending or answered, as it was told by a first byte: `i`, `s`, `a`."""

    state = b"i"

    def data_received(self, data: bytes) -> None:
        self.state = data[:1]
        self.among.heard(self)

    def is_idle(self) -> bool:
        return self.state == b"i"

    def is_awaited(self) -> bool:
        return self.state == b"s"


class Short(socket.socket):
    """Listens where the process has no descriptors left, unless it is `rich`."""

    rich = False
    tries = 0

    def accept(self) -> Any:
        self.tries += 1
        if not self.rich:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return super().accept()


@pytest.fixture
def connections() -> Connections:
    return Connections(3)


@pytest.fixture
async def listening(connections: Connections) -> AsyncGenerator[Short]:
    (plain,) = bound("127.0.0.1", 0)
    short = Short(fileno=plain.detach())
    short.setblocking(False)
    listener = Listener([short], Talker, connections)
    yield short
    listener.close()
    for one in list(connections._all):
        one.hang_up()
    await eventually(lambda: not connections)


class Client:
    """Connects and says in which state it is."""

    def __init__(self, port: int, state: bytes) -> None:
        self._port, self._state = port, state

    async def connect(self) -> "Client":
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self._port)
        self.writer.write(self._state)
        return self

    async def ended(self) -> bool:
        try:
            return await self.reader.read() == b""
        except ConnectionError:
            return True
        finally:
            self.writer.close()


async def test_those_who_wait_least_for_us_make_room(
    listening: Short, connections: Connections, clock: Clock
) -> None:
    listening.rich = True
    port = listening.getsockname()[1]
    clients = list[Client]()

    async def come(state: bytes) -> None:
        before = list(connections._all)
        clients.append(await Client(port, state).connect())
        # It is idle until it has been heard, and who is idle has to go first.
        await eventually(lambda: state in states(connections, before))
        await settled()

    for state in (b"s", b"i", b"a"):
        await come(state)
    assert not connections.troubles
    await come(b"a")
    assert await clients[1].ended()
    await come(b"a")
    assert await clients[0].ended()
    assert states(connections) == [b"a"] * 3
    assert "all 3 connections were in use" in connections.troubles[0]
    last = await Client(port, b"a").connect()
    await eventually(lambda: len(connections.troubles) == 2)
    assert connections.troubles[1] == "new connections wait: all 3 are in use"
    clients[2].writer.close()
    before = list(connections._all)
    await clock.until(lambda: list(connections._all) != before and connections.full)
    clock.advance(3_600)
    assert not connections.troubles
    for client in (*clients, last):
        client.writer.close()


async def test_who_takes_no_answer_makes_room_too(
    listening: Short, connections: Connections
) -> None:
    listening.rich = True
    port = listening.getsockname()[1]
    clients = [await Client(port, b"a").connect() for _ in range(3)]
    await eventually(lambda: states(connections) == [b"a"] * 3)
    (*_, stalled) = connections._all
    stalled.pause_writing()
    clients.append(await Client(port, b"s").connect())
    await eventually(lambda: sorted(states(connections)) == [b"a", b"a", b"s"])
    assert not stalled.is_open
    for client in clients:
        client.writer.close()


async def test_out_of_descriptors_it_waits_and_says_so_once(
    listening: Short, connections: Connections, clock: Clock
) -> None:
    clock.stop()
    with capture_logs() as logs:
        client = await Client(listening.getsockname()[1], b"a").connect()
        await eventually(lambda: listening.tries == 1)
        await settled()
        assert listening.tries == 1
        for count in range(2, 6):
            clock.advance(1)
            await eventually(lambda count=count: listening.tries == count)
        listening.rich = True
        clock.advance(1)
        await eventually(lambda: len(connections) == 1)
    reason = "new connections wait: there are no file descriptors left"
    assert [line["reason"] for line in logs] == [reason] == connections.troubles
    client.writer.close()


async def test_a_name_has_all_its_addresses() -> None:
    sockets = bound("localhost", 0)
    assert {one.getsockname()[0] for one in sockets} <= {"127.0.0.1", "::1"}
    for one in sockets:
        one.close()
    # No name server is asked for it: one that does not answer says something else.
    with pytest.raises(OSError, match="not known"):
        bound("fe80::1%nowhere", 0)


async def test_no_answer_waits_for_the_one_before_to_be_acknowledged(
    connections: Connections,
) -> None:
    accepted = list[asyncio.BaseTransport]()

    class Taker(Talker):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            accepted.append(transport)

    (plain,) = bound("127.0.0.1", 0)
    # As a process that is handed its sockets knows them.
    handed = socket.socket(fileno=os.dup(plain.fileno()))
    plain.close()
    for one in (bound("127.0.0.1", 0)[0], handed):
        listener = Listener([one], Taker, connections)
        client = await Client(listener.port, b"i").connect()
        await eventually(lambda: accepted)
        known = accepted.pop().get_extra_info("socket")
        assert known.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        client.writer.close()
        listener.close()
    await eventually(lambda: not connections)


def states(connections: Connections, but: Collection[object] = ()) -> list[bytes]:
    known = [one for one in connections._all if one not in but]
    return [one.state for one in known if isinstance(one, Talker)]


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """What the limit was last set to, and what it is."""
    known = [(1_024, 4_096)]

    def change(_: int, limit: tuple[int, int]) -> None:
        known.append(limit)

    def now(_: int) -> tuple[int, int]:
        return known[-1]

    monkeypatch.setattr(resource, "getrlimit", now)
    monkeypatch.setattr(resource, "setrlimit", change)
    return known


def test_the_limit_is_raised_and_shared_out(limits: list[tuple[int, int]]) -> None:
    assert descriptors.most_connections() == 512
    assert descriptors.kept_connections() == 128
    descriptors.raise_limit()
    assert limits[-1] == (4_096, 4_096)
    assert descriptors.most_connections() == 2_000
    limits.append((100, 100))
    descriptors.raise_limit()
    assert len(limits) == 3
    assert (descriptors.most_connections(), descriptors.kept_connections()) == (50, 12)
    limits.append((256, resource.RLIM_INFINITY))
    descriptors.raise_limit()
    assert limits[-1] == (65_536, resource.RLIM_INFINITY)
