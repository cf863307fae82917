"""The ports of a replica that stands by: they pass connections on to the one that acts."""

import asyncio
import contextlib
import json
import socket
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

from letta_matrix.app.request_head import Headers, RequestHead, read_head
from letta_matrix.common.connections.admission import Accepted, Connections
from letta_matrix.common.connections.listener import Listener, bound
from letta_matrix.common.tasks import Tasks

Address = tuple[str, int]
Answer = Callable[[Headers], tuple[int, Mapping[str, object]]]
"""Tells the status and the JSON that whoever sent these headers is answered."""

_END = b"\r\n\r\n"
_LONGEST_HEAD = 16_384
_HEAD_SECONDS = 10.0
_CONNECT_SECONDS = 3.0
_LINGER = 3.0
"""Seconds in which a client may end by itself what was answered to its end."""
_SILENT = 60
"""Seconds of silence after which the system asks whether the other side is still there."""
_NOBODY = {
    "errcode": "M_UNKNOWN",
    "error": "no replica of the bridge acts at the moment; try again in a few seconds",
}


class Relay:
    """Listens on one port, and passes each connection on to where `leads` leads once the head of
    a request has come: bytes as they come, whatever is spoken. What `own` has under a path is
    answered here, to whoever asks for it first on a connection.

    Where nobody acts, whoever comes is asked to come again (503), as homeservers and proxies do;
    so is what leads back to here.
    """

    def __init__(
        self,
        leads: Callable[[], Address | None],
        own: Mapping[str, Answer],
        connections: Connections,
    ) -> None:
        self.own = own
        self.clients: set[_Client] = set()
        self.connecting = Tasks()
        self.is_closed = False
        self.ways: set[Address] = set()
        self._leads = leads
        self._connections = connections
        self._listener: Listener | None = None

    async def start(self, hostname: str, port: int) -> None:
        """Listen. Raises OSError."""
        self._listener = Listener(bound(hostname, port), lambda: _Client(self), self._connections)

    async def close(self) -> None:
        """Listen no more, and end what is passed on."""
        self.is_closed = True
        if self._listener is not None:
            self._listener.close()
        await self.cut()

    async def cut(self) -> None:
        """End what is passed on: where it led nobody acts any more."""
        for client in list(self.clients):
            if self.is_closed or not client.is_idle():
                client.hang_up()
        await self.connecting.cancel()

    async def reach(self, client: "_Client") -> "_There":
        """A connection for a client to the one that acts. Raises OSError."""
        address = self._leads()
        if address is None:
            raise ConnectionRefusedError
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(_CONNECT_SECONDS):
            _, there = await loop.create_connection(lambda: _There(client, self.ways), *address)
        return there


class _Client(Accepted):
    """The connection of one who came. It is in one of these states, in this order: its head comes,
    the way is looked for, it is passed on, all is said."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._head = bytearray()
        self._has_asked = self._has_said_all = self._is_over = self._is_answered = False
        self._there: _There | None = None
        self._later: asyncio.TimerHandle | None = None

    def is_idle(self) -> bool:
        return not self._has_asked or self._is_over

    def is_awaited(self) -> bool:
        # What is spoken is not known here: who has been answered may be between requests, or
        # listen to a stream. Those that are quiet for longest go first.
        return self._is_answered

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        _ask_now_and_then(transport)
        self._relay.clients.add(self)
        self._end_in(_HEAD_SECONDS)
        if self._relay.is_closed:
            self.hang_up()

    def let_go(self) -> None:
        super().let_go()
        self._relay.clients.discard(self)
        self._take_later()
        if self._there is not None:
            self._there.hang_up()

    def data_received(self, data: bytes) -> None:
        if self._is_over:
            return
        if self._there is not None:
            self._passes(answer=False)
            self._there.take(data)
            return
        searched = max(0, len(self._head) - len(_END))
        self._head += data
        end = self._head.find(_END, searched)
        if not self._has_asked and (end >= 0 or len(self._head) > _LONGEST_HEAD):
            self._asked(read_head(bytes(self._head[: end + len(_END)])) if end >= 0 else None)

    def eof_received(self) -> bool:
        # A request may end before its answer does.
        if self._there is None or self._is_over:
            return False
        self._has_said_all = True
        self._there.ends()
        return True

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._there is not None:
            self._there.pause(True)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._there is not None:
            self._there.pause(False)

    def pause(self, pauses: bool) -> None:
        """Read no more of what it sends, or again."""
        _pause(self._wire, pauses)

    def answered(self, data: bytes) -> None:
        """Send it what the one that acts says."""
        self._passes(answer=True)
        self.take(data)

    def take(self, data: bytes) -> None:
        """Send it something."""
        if self._wire is not None and not self._is_over:
            self._wire.write(data)

    def ends(self) -> None:
        """All is said to it. What it still sends is read for a moment, and dropped: where the
        system has to refuse it, the answer could be lost with it."""
        if self._wire is None or self._is_over:
            return
        self._is_over = True
        if self._has_said_all:
            self._wire.close()
            return
        _no_more(self._wire)
        self.pause(False)
        self._end_in(_LINGER)

    def _asked(self, head: RequestHead | None) -> None:
        self._has_asked = True
        self.among.heard(self)
        self._take_later()
        answer = self._relay.own.get(head.path) if head is not None and head.reads else None
        if answer is not None and head is not None:
            self._say(*answer(head.headers), with_body=head.method == b"GET")
            return
        self.pause(True)
        self._relay.connecting.start(self._pass_on())

    async def _pass_on(self) -> None:
        try:
            if self._comes_from_here():
                raise ConnectionRefusedError
            there = await self._relay.reach(self)
        except (OSError, TimeoutError, UnicodeError):
            # A name that no resolver takes is a UnicodeError.
            self._say(503, _NOBODY)
            return
        if self._wire is None:
            there.hang_up()
            return
        self._there = there
        there.take(bytes(self._head))
        self._head.clear()
        self.pause(False)

    def _passes(self, *, answer: bool) -> None:
        self._is_answered = answer
        self.among.heard(self)

    def _comes_from_here(self) -> bool:
        """Whether it is what this very port passes on."""
        wire = self._wire
        return wire is not None and _end_of(wire, "peername") in self._relay.ways

    def _say(self, status: int, told: Mapping[str, object], *, with_body: bool = True) -> None:
        body = json.dumps(told).encode()
        lines = [
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
            *(["Retry-After: 2"] if status == 503 else []),
            "Connection: close",
        ]
        self.take("\r\n".join([*lines, "", ""]).encode() + (body if with_body else b""))
        self.ends()

    def _end_in(self, seconds: float) -> None:
        self._later = asyncio.get_running_loop().call_later(seconds, self._end)

    def _end(self) -> None:
        # What it has not taken yet of an answer it is sent, as long as `Accepted` waits.
        if self._wire is not None:
            self._wire.close()

    def _take_later(self) -> None:
        if self._later is not None:
            self._later.cancel()
            self._later = None


class _There(asyncio.Protocol):
    """The connection to the one that acts, for a client. `ways` are where such begin."""

    def __init__(self, client: _Client, ways: set[Address]) -> None:
        self._client = client
        self._ways = ways
        self._wire: Any = None
        self._begins: Address = ("", 0)

    def connection_made(self, transport: Any) -> None:
        self._wire = transport
        _ask_now_and_then(transport)
        self._begins = _end_of(transport, "sockname")
        self._ways.add(self._begins)

    def connection_lost(self, exc: Exception | None) -> None:
        self._ways.discard(self._begins)
        self._client.ends()

    def data_received(self, data: bytes) -> None:
        self._client.answered(data)

    def eof_received(self) -> None:
        self._client.ends()

    def pause_writing(self) -> None:
        self._client.pause(True)

    def resume_writing(self) -> None:
        self._client.pause(False)

    def take(self, data: bytes) -> None:
        """Send what the client says."""
        if not self._wire.is_closing():
            self._wire.write(data)

    def ends(self) -> None:
        """The client says no more."""
        _no_more(self._wire)

    def pause(self, pauses: bool) -> None:
        """Read no more of what comes, or again."""
        _pause(self._wire, pauses)

    def hang_up(self) -> None:
        """End it now: nobody is there for what comes."""
        self._wire.abort()


def _pause(wire: Any, pauses: bool) -> None:
    if wire is not None and not wire.is_closing():
        (wire.pause_reading if pauses else wire.resume_reading)()


def _no_more(wire: Any) -> None:
    # Where the other side has gone already, there is nothing to end.
    with contextlib.suppress(OSError):
        wire.write_eof()


def _end_of(wire: asyncio.BaseTransport, side: str) -> Address:
    """Of a connection, written in one way whether or not IPv6 carries it."""
    host, port, *_ = wire.get_extra_info(side) or ("", 0)
    return host.removeprefix("::ffff:"), port


def _ask_now_and_then(transport: asyncio.BaseTransport) -> None:
    """Let the system find out when the other side is gone without a word."""
    wire = transport.get_extra_info("socket")
    options = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    for name, value in (("TCP_KEEPIDLE", _SILENT), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4)):
        if (option := getattr(socket, name, None)) is not None:
            options.append((socket.IPPROTO_TCP, option, value))
    with contextlib.suppress(OSError):
        for option in options:
            wire.setsockopt(*option)
