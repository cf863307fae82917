"""What takes the homeserver's transactions while no bridge runs, and keeps nothing of them."""

from dataclasses import dataclass, field
from typing import Self

from aiohttp import web


@dataclass
class DeafAppservice:
    """Listens on the application service's port from `start` to `stop`, so that the homeserver
    saves up nothing that the next bridge would have to be told first."""

    port: int
    taken: list[str] = field(default_factory=list[str])
    _runner: web.AppRunner | None = None

    async def start(self) -> None:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_route("*", "/{path:.*}", self._take)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def _take(self, request: web.Request) -> web.Response:
        self.taken.append(await request.text())
        return web.json_response({})
