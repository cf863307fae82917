"""A network between an adapter and its server that a test can cut."""

import asyncio
import ssl
from dataclasses import dataclass, field
from typing import Self

from tests.servers import free_port


@dataclass
class Relay:
    """Forwards TCP connections of loopback to `target`; `down` refuses and breaks them, `part`
    keeps what comes on them, and whoever is at their ends hears nothing of it. With `tls` it is a
    proxy that speaks that."""

    target: int
    port: int = field(default_factory=free_port)
    tls: ssl.SSLContext | None = None
    _passes: asyncio.Event = field(default_factory=asyncio.Event)
    _server: asyncio.Server | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set["asyncio.Task[None]"])

    async def __aenter__(self) -> Self:
        await self.up()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.down()

    async def up(self) -> None:
        """Take connections, always at the same port, which nobody else gets meanwhile."""
        self._server = await asyncio.start_server(
            self._accept, "127.0.0.1", self.port, ssl=self.tls
        )
        self._passes.set()

    def part(self) -> None:
        """As if a cable were cut."""
        self._passes.clear()

    def join(self) -> None:
        """As if it were mended: what was kept goes on."""
        self._passes.set()

    async def mend(self) -> None:
        """As if it were mended long after: what was open meanwhile is not any more."""
        await self.down()
        await self.up()

    async def down(self) -> None:
        """As if the server were gone."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        def over(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            writer.transport.abort()

        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(over)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, away = await asyncio.open_connection("127.0.0.1", self.target)
        ways = [
            asyncio.create_task(self._copy(reader, away)),
            asyncio.create_task(self._copy(there, writer)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            away.transport.abort()
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            await self._passes.wait()
            writer.write(data)
            await writer.drain()
