"""The ports of a replica that stands by: it passes connections on to the one that acts."""

import asyncio
import contextlib
import json
from asyncio import StreamReader, StreamWriter
from collections.abc import Awaitable, Callable, Mapping

import structlog

from letta_matrix.common.connections.listener import bound
from letta_matrix.common.tasks import Tasks

log = structlog.get_logger()

Address = tuple[str, int]

_HEAD = 65_536
_HEAD_TIMEOUT = 10.0
_CONNECT_TIMEOUT = 3.0
_CHUNK = 65_536
_MOST = 1_000
_OWN = (b"/health", b"/ready")


class Relay:
    """Listens on one port, and passes each connection on to where `leads` leads by then: bytes as
    they come, whatever is spoken. Health is this replica's own, for whoever asks for it first on a
    connection: `answers` tells the status and the JSON for a path.

    Where nobody acts, whoever comes is asked to come again (503), as homeservers and proxies do.
    """

    def __init__(
        self,
        leads: Callable[[], Address | None],
        answers: Callable[[str], tuple[int, Mapping[str, object]]],
    ) -> None:
        self._leads = leads
        self._answers = answers
        self._servers: list[asyncio.Server] = []
        self._running = Tasks()

    async def start(self, hostname: str, port: int) -> None:
        """Listen. Raises OSError."""
        for listening in bound(hostname, port):
            server = await asyncio.start_server(self._accept, sock=listening, limit=_HEAD)
            self._servers.append(server)

    async def close(self) -> None:
        """Listen no more, and end what is passed on."""
        for server in self._servers:
            server.close()
        self._servers.clear()
        await self.cut()

    async def cut(self) -> None:
        """End what is passed on: where it led nobody acts any more."""
        await self._running.cancel()

    def _accept(self, reader: StreamReader, writer: StreamWriter) -> None:
        if len(self._running) >= _MOST:
            writer.transport.abort()
            return
        self._running.start(self._serve(reader, writer))

    async def _serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        try:
            async with asyncio.timeout(_HEAD_TIMEOUT):
                head = await reader.readline()
            path = _path(head)
            if path in _OWN:
                await _answer(writer, *self._answers(path.decode()))
            elif head:
                await self._pass_on(head, reader, writer)
        except (OSError, ValueError, TimeoutError):
            # Whoever came has gone, or has sent no request.
            return
        finally:
            writer.close()

    async def _pass_on(self, head: bytes, reader: StreamReader, writer: StreamWriter) -> None:
        address = self._leads()
        try:
            if address is None:
                raise ConnectionRefusedError
            async with asyncio.timeout(_CONNECT_TIMEOUT):
                there, back = await asyncio.open_connection(*address)
        except (OSError, TimeoutError):
            await _answer(writer, 503, _NOBODY)
            return
        try:
            back.write(head)
            await _both(_pipe(reader, back), _pipe(there, writer))
        finally:
            back.close()


_NOBODY = {
    "errcode": "M_UNKNOWN",
    "error": "no replica of the bridge acts at the moment; try again in a few seconds",
}
_REASONS = {200: "OK", 503: "Service Unavailable"}


def _path(head: bytes) -> bytes:
    """What a request's first line asks for, without its query, b"" where it is none."""
    parts = head.split()
    return parts[1].partition(b"?")[0] if len(parts) == 3 and parts[0] in (b"GET", b"HEAD") else b""


async def _answer(writer: StreamWriter, status: int, told: Mapping[str, object]) -> None:
    body = json.dumps(told).encode()
    lines = [
        f"HTTP/1.1 {status} {_REASONS[status]}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        *(["Retry-After: 2"] if status == 503 else []),
        "Connection: close",
    ]
    writer.write("\r\n".join([*lines, "", ""]).encode() + body)
    await writer.drain()


async def _pipe(reader: StreamReader, writer: StreamWriter) -> None:
    while data := await reader.read(_CHUNK):
        writer.write(data)
        await writer.drain()
    with contextlib.suppress(OSError):
        # A request may end before its answer does.
        if writer.can_write_eof():
            writer.write_eof()


async def _both(*pipes: Awaitable[None]) -> None:
    """Until both directions have ended, or one fails."""
    tasks = [asyncio.ensure_future(one) for one in pipes]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
