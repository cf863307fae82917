"""An aiohttp application on one address."""

import asyncio
from collections.abc import Callable
from typing import Any

import structlog
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from letta_matrix.common.connections.admission import Accepted, Connections
from letta_matrix.common.connections.listener import Listener, bound

log = structlog.get_logger()

HEAD_SECONDS = 20.0
"""Seconds from a connection to the end of its first request's head."""


class Handler(Accepted, web.RequestHandler):
    """A connection. aiohttp closes one that is idle behind a request."""

    _heads = 0
    _look: asyncio.TimerHandle | None = None

    def is_idle(self) -> bool:
        return not self._request_in_progress and not self._messages

    def is_awaited(self) -> bool:
        # Bodies are read of those who have a token; what others send is passed over for seconds.
        return False

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._look = self._loop.call_later(HEAD_SECONDS, self._hang_up_on_silent)

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._look is not None:
            self._look.cancel()
        super().connection_lost(exc)  # type: ignore[arg-type]

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._request_count > self._heads:
            self._heads = self._request_count
            self.among.heard(self)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Says no more than needed of what is no HTTP, and nothing of it in the log."""
        if not isinstance(exc, HttpProcessingError):
            return super().handle_error(request, status, exc, message)
        log.info("a request that is no HTTP was refused", fault=type(exc).__name__)
        response = web.Response(status=400, text="This is no HTTP request.")
        response.force_close()
        return response

    def _hang_up_on_silent(self) -> None:
        if not self._heads:
            self.hang_up()


class AiohttpServer:
    """Serves an application. `keepalive` is how many seconds a connection may be idle behind a
    request, `farewell` how many those in progress have at the end."""

    def __init__(
        self, app: web.Application, connections: Connections, *, keepalive: float, farewell: float
    ) -> None:
        self._connections = connections
        self._runner = web.AppRunner(
            app,
            access_log=None,
            handle_signals=False,
            keepalive_timeout=keepalive,
            shutdown_timeout=farewell,
        )
        self._listener: Listener | None = None

    @property
    def port(self) -> int:
        """Where it listens, 0 before it does."""
        return self._listener.port if self._listener is not None else 0

    async def start(self, hostname: str, port: int) -> None:
        """Listen. Raises OSError when the port is taken."""
        await self._runner.setup()
        try:
            self._listener = Listener(bound(hostname, port), self._make(), self._connections)
        except OSError:
            await self._runner.cleanup()
            raise

    def stop_listening(self) -> None:
        """Accept nobody any more; who is connected stays."""
        if self._listener is not None:
            self._listener.close()

    async def close(self) -> None:
        """Stop listening, and end every connection."""
        self.stop_listening()
        await self._runner.cleanup()

    def _make(self) -> Callable[[], Handler]:
        server: Any = self._runner.server
        loop = asyncio.get_running_loop()
        return lambda: Handler(server, loop=loop, **server._kwargs)
