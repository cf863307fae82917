"""A WebSocket that says what a test tells it to, in place of an App Server."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from aiohttp import web
from tests.waiting import eventually

from letta_matrix.config import AppServerRuntime
from letta_matrix.runtimes.app_server import AppServer
from letta_matrix.runtimes.app_server.keepers import local_keeper
from letta_matrix.runtimes.keeper.doors import LocalDoor
from letta_matrix.runtimes.keeper.secret import secret_at
from letta_matrix.runtimes.keeper.server import Keeper


@dataclass
class FakeAppServer:
    """Answers at `url`; `received` holds every text, `senders` the connection that each came
    on, `headers` those of the last handshake. Without the `token` a `refusal` of that type comes.

    `respond` is given each frame and returns the frames to send back.
    """

    token: str | None = None
    refusal: str = "text/plain"
    port: int = 0
    respond: Callable[[dict[str, Any]], list[dict[str, Any]]] = lambda _: []
    received: list[str] = field(default_factory=list[str])
    senders: list[web.WebSocketResponse] = field(default_factory=list[web.WebSocketResponse])
    headers: dict[str, str] = field(default_factory=dict[str, str])
    sockets: list[web.WebSocketResponse] = field(default_factory=list[web.WebSocketResponse])
    _runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/ws"

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_get("/ws", self._serve)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()
        self.port = int(self._runner.addresses[0][1])
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.drop()
        if self._runner is not None:
            await self._runner.cleanup()

    async def say(self, *frames: dict[str, Any] | str) -> None:
        """Send frames on every connection."""
        for frame in frames:
            text = frame if isinstance(frame, str) else json.dumps(frame, separators=(",", ":"))
            for socket in self.sockets:
                await socket.send_str(text)

    async def drop(self) -> None:
        """Close every connection."""
        for socket in list(self.sockets):
            await socket.close()

    async def heard(self, count: int) -> list[str]:
        """The first `count` texts, once they came."""
        await eventually(lambda: len(self.received) >= count)
        return self.received[:count]

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        self.headers = dict(request.headers)
        if self.token and self.headers.get("Authorization") != f"Bearer {self.token}":
            return web.Response(status=401, content_type=self.refusal)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self.sockets.append(socket)
        try:
            async for message in socket:
                self.received.append(message.data)
                self.senders.append(socket)
                for answer in self.respond(json.loads(message.data)):
                    await socket.send_str(json.dumps(answer, separators=(",", ":")))
        finally:
            self.sockets.remove(socket)
        return socket


@asynccontextmanager
async def adapter_at(
    upstream: FakeAppServer, socket: Path, ended: Callable[[], None] = lambda: None
) -> AsyncGenerator[AppServer]:
    """An adapter with a keeper in this process, which calls `ended` when it is told to end; not
    started yet."""
    keeper = Keeper(100_000, lambda _: None, ended)
    server = await asyncio.start_unix_server(LocalDoor(keeper, secret_at(socket)).serve, socket)
    settings = AppServerRuntime.model_validate({"url": upstream.url})
    adapter = AppServer(settings, local_keeper(settings, socket))
    try:
        yield adapter
    finally:
        await adapter.close()
        server.close()
        await keeper.close()
