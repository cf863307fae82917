"""Listening: sockets, and accepting from them.

asyncio's own servers, where a process is out of file descriptors, try as often as their backlog is
long, again every second, and log each try with its stack.
"""

import asyncio
import contextlib
import errno
import socket
from collections.abc import Callable, Sequence
from typing import Any

import structlog

from letta_matrix.common.connections.admission import Accepted, Connections
from letta_matrix.common.connections.inherited import inherited
from letta_matrix.common.parts import part
from letta_matrix.common.tasks import Tasks

log = structlog.get_logger()

_BACKLOG = 2_048
_AT_ONCE = 100
"""Connections accepted before anything else has its turn."""
_PAUSE = 1.0
"""Seconds until accepting is tried again."""
_ABSENT = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)


@part
class Listener:
    """Accepts from sockets; `make` makes the protocol of each connection."""

    sockets: Sequence[socket.socket]
    _make: Callable[[], Accepted]
    _connections: Connections

    def __post_init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._later: dict[socket.socket, asyncio.TimerHandle] = {}
        self._arriving = Tasks()
        for listening in self.sockets:
            self._go_on(listening)

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.sockets[0].getsockname()[1])

    def close(self) -> None:
        """Listen no more. Connections stay."""
        for listening in self.sockets:
            if listening.fileno() >= 0:
                self._loop.remove_reader(listening)
            if (later := self._later.pop(listening, None)) is not None:
                later.cancel()
            listening.close()

    async def wait_closed(self) -> None:
        """What servers of asyncio have; there is nothing to wait for."""

    def _accept(self, listening: socket.socket) -> None:
        for accepted in range(_AT_ONCE):
            if accepted and self._connections.full:
                return  # nobody has to go before another one is known to wait
            if not self._connections.has_room():
                self._pause(listening)
                return
            try:
                connection, _ = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._connections.refused(error)
                self._connections.make_room()
                self._pause(listening)
                return
            self._take_in(connection)

    def _take_in(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        protocol = self._make()
        protocol.among = self._connections
        self._connections.enter(protocol)
        self._arriving.start(self._connect(connection, protocol))

    async def _connect(self, connection: socket.socket, protocol: Accepted) -> None:
        try:
            await self._loop.connect_accepted_socket(lambda: protocol, connection)
        except OSError as error:
            log.info("a connection failed at once", reason=str(error))
            self._connections.leave(protocol)
            connection.close()

    def _pause(self, listening: socket.socket) -> None:
        self._loop.remove_reader(listening)
        self._later[listening] = self._loop.call_later(_PAUSE, self._go_on, listening)

    def _go_on(self, listening: socket.socket) -> None:
        self._loop.add_reader(listening, self._accept, listening)


def bound(hostname: str, port: int) -> list[socket.socket]:
    """Listening sockets, on every address of `hostname` that the system has; those that we were
    given, if we were. Raises OSError."""
    if given := inherited(hostname, port):
        return given
    found = socket.getaddrinfo(
        hostname or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    addresses = [(one[0], one[4]) for one in dict.fromkeys(found)]
    absent: OSError | None = None
    with contextlib.ExitStack() as failed:
        sockets: list[socket.socket] = []
        for family, address in addresses:
            try:
                listening = _listening(family, address, alone=len(addresses) == 1)
            except OSError as error:
                if error.errno not in _ABSENT:
                    raise
                absent = error
            else:
                sockets.append(failed.enter_context(listening))
        if not sockets and absent is not None:
            raise absent
        failed.pop_all()
        return sockets


def _listening(family: int, address: Any, *, alone: bool) -> socket.socket:
    # Named, as asyncio turns Nagle's algorithm off for what it knows to be TCP alone: an answer in
    # two pieces would wait 40 ms for the first one's acknowledgement.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setblocking(False)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6 and not alone:
            # The same port of IPv4 has a socket of its own.
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.bind(address)
        listening.listen(_BACKLOG)
    except OSError:
        listening.close()
        raise
    return listening
