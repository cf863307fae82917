"""A proxy before several servers, as simple as they get."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from letta_matrix.common.tasks import Tasks

Address = tuple[str, int]


@dataclass(eq=False)
class Balancer:
    """Takes connections on `port` and hands each to the next of `servers` that takes it, whatever
    is spoken."""

    port: int
    servers: Sequence[Address]
    served: list[Address] = field(default_factory=list[Address])
    _running: Tasks = field(default_factory=Tasks)
    _server: asyncio.Server | None = None

    async def __aenter__(self) -> "Balancer":
        self._server = await asyncio.start_server(self._take, "127.0.0.1", self.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        await self._running.cancel()

    def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._running.start(self._serve(reader, writer))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await self._connected()
        except OSError:
            writer.close()
            return
        try:
            await asyncio.gather(self._pipe(reader, back), self._pipe(there, writer))
        except OSError:
            pass
        finally:
            back.close()
            writer.close()

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        turn = len(self.served) % len(self.servers)
        for address in (*self.servers[turn:], *self.servers[:turn]):
            try:
                connection = await asyncio.open_connection(*address)
            except OSError:
                continue
            self.served.append(address)
            return connection
        raise ConnectionRefusedError

    async def _pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
