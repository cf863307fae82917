"""A stand-in of a server that goes down and comes back, and finds its port as it has left it."""

import socket
import ssl

from aiohttp import web
from tests.servers import held_port


class KeptServer:
    """Listens on `port`, on one of its own where none is set; with TLS where there is `tls`."""

    def __init__(self) -> None:
        self.port = 0
        self.tls: ssl.SSLContext | None = None
        self._runner: web.AppRunner | None = None
        self._held_port: socket.socket | None = None

    async def listen(self, app: web.Application) -> None:
        """After `go_away` on the same port."""
        if not self.port:
            self._held_port = held_port()
            self.port = int(self._held_port.getsockname()[1])
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        where = "127.0.0.1", self.port
        await web.TCPSite(self._runner, *where, reuse_address=True, ssl_context=self.tls).start()

    async def go_away(self) -> None:
        """Listen no more until the next start; nobody else gets the port meanwhile."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def stop(self) -> None:
        await self.go_away()
        if self._held_port is not None:
            self._held_port.close()
            self._held_port = None
