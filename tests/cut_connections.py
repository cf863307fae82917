"""A way to a server that can be cut at a moment that a test names."""

import asyncio
import ssl
from dataclasses import dataclass
from typing import Self

_TLS_WANTED = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"
"""PostgreSQL, "Message Formats": SSLRequest."""


class _Cut(Exception):
    pass


@dataclass
class _Connection:
    """`is_meant`: it may be cut; `is_over`: with what the server says next."""

    is_meant: bool = False
    is_over: bool = False


class Relay:
    """Passes on what comes to its `port` to the same port of another. As soon as a client says
    `cut_at`, once, on a connection on which `cut_after` was said since it is set, that connection
    ends: before the server has heard it or, `heard`, in the place of its answer. `shut`: then
    nobody comes in any more. With `tls` it speaks that like a PostgreSQL server with a certificate;
    `encrypted` counts who has."""

    def __init__(self, port: int, tls: ssl.SSLContext | None = None) -> None:
        self.encrypted = 0
        self._tls = tls
        self.port = 0
        self.cut_at = self.cut_after = b""
        self.heard = self.shut = False
        self._to = port
        self._is_shut = False

    def let_in(self) -> None:
        """Who comes is let in again."""
        self.shut = self._is_shut = False

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        if self._is_shut:
            back.transport.abort()
            return
        try:
            await self._encrypt(near, back)
            far, forth = await asyncio.open_connection("127.0.0.1", self._to)
        except (ConnectionError, EOFError, ssl.SSLError):
            back.transport.abort()
            return
        one = _Connection()
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._ask(one, near, forth))
                both.create_task(self._answer(one, far, back))
        except* (ConnectionError, _Cut):
            pass
        finally:
            for writer in (back, forth):
                writer.transport.abort()

    async def _encrypt(self, near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        if self._tls is None:
            return
        assert await near.readexactly(len(_TLS_WANTED)) == _TLS_WANTED
        back.write(b"S")
        await back.start_tls(self._tls)
        self.encrypted += 1

    async def _ask(
        self, one: _Connection, source: asyncio.StreamReader, target: asyncio.StreamWriter
    ) -> None:
        while said := await source.read(65_536):
            one.is_meant |= bool(self.cut_at) and self.cut_after in said
            if one.is_meant and self.cut_at and self.cut_at in said:
                self.cut_at, self._is_shut = b"", self.shut
                if not self.heard:
                    break
                one.is_over = True
            target.write(said)
            await target.drain()
        raise _Cut

    async def _answer(
        self, one: _Connection, source: asyncio.StreamReader, target: asyncio.StreamWriter
    ) -> None:
        while (said := await source.read(65_536)) and not one.is_over:
            target.write(said)
            await target.drain()
        raise _Cut
