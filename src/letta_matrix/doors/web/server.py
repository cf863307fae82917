"""An HTTP server for an ASGI application, in this process."""

import asyncio
import socket
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import structlog
import uvicorn
from starlette.responses import PlainTextResponse
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from letta_matrix.common.connections.admission import Accepted, Connections
from letta_matrix.common.connections.listener import Listener, bound
from letta_matrix.common.waiting import ends_before, is_set

log = structlog.get_logger()

_LONGEST_HEAD = 256_000
_HEAD_SECONDS = 20.0
_SLOWEST = 5_000.0
"""Bytes of a body a second."""
_TICK = 1.0
_LATER = b"The bridge ends, or another one takes its place: ask again.\n"
_GRACE = 1
"""Seconds that requests in progress have at the end."""
_PING_INTERVAL = 30.0
_PING_TIMEOUT = 15.0
"""Seconds between pings, and for the answer to one."""


class _Connection(Accepted, HttpToolsProtocol):
    """Hangs up on heads, trailers and chunk lines without end, which uvicorn would keep in memory,
    and on heads and bodies that take too long. Trailers (RFC 9110 section 6.5) are dropped."""

    _in_head = True
    _unfinished = 0
    _heads = 0
    _received = 0
    _seen = (0, 0)
    _look: asyncio.TimerHandle | None = None

    def is_idle(self) -> bool:
        return self._in_head and not self._is_answered()

    def is_awaited(self) -> bool:
        # While reading is paused, or no 100 (Continue) was sent, they wait for us.
        waits = self.flow.read_paused or (self.cycle and self.cycle.waiting_for_100_continue)
        return not self._in_head and not waits

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._look_later()

    def let_go(self) -> None:
        if self._look is not None:
            self._look.cancel()
        super().let_go()

    def handle_websocket_upgrade(self) -> None:
        super().handle_websocket_upgrade()
        self.let_go()

    def data_received(self, data: bytes) -> None:
        # What is whole in `data`, a head or a piece of a body, takes this back.
        self._unfinished += len(data)
        self._received += len(data)
        super().data_received(data)
        if self._unfinished > _LONGEST_HEAD:
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        # By itself uvicorn's log has a line for each; ours stops repeating itself.
        log.info("a request that is no HTTP was refused")
        super().send_400_response(msg)

    def on_message_begin(self) -> None:
        # It may begin in data whose first part ended a message.
        self._unfinished += 1
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head, self._unfinished = False, 0
        self._heads += 1
        self.among.heard(self)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._unfinished = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_head, self._unfinished = True, 0
        super().on_message_complete()

    def _look_later(self) -> None:
        self._look = self.loop.call_later(_HEAD_SECONDS, self._hang_up_on_slow)

    def _hang_up_on_slow(self) -> None:
        heads, received = self._seen
        if self._heads == heads and (self._head_is_late() or self._body_is_late(received)):
            self.hang_up()
            return
        self._seen = self._heads, self._received
        self._look_later()

    def _head_is_late(self) -> bool:
        begun = self._unfinished > 0 or self._heads == 0
        return self._in_head and begun and not self._is_answered()

    def _body_is_late(self, received: int) -> bool:
        return self.is_awaited() and self._received - received < _SLOWEST * _HEAD_SECONDS

    def _is_answered(self) -> bool:
        return bool(self.cycle) and not self.cycle.response_complete


class _Server(uvicorn.Server):
    """Leaves signals to whoever runs the process, and looks about once a second, not ten times:
    an idle bridge is to sleep."""

    def __init__(self, config: uvicorn.Config, connections: Connections) -> None:
        super().__init__(config)
        self.stop = asyncio.Event()
        self.listens = asyncio.Event()
        self._connections = connections

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        config = self.config

        def connection() -> _Connection:
            return _Connection(config=config, server_state=self.server_state, app_state={})

        listener = Listener(sockets or [], connection, self._connections)
        self.servers = [listener]  # type: ignore[list-item]
        self.started = True
        self.listens.set()

    async def main_loop(self) -> None:
        # Zero: each time is one at which the `Date` header is made anew.
        while not await self.on_tick(0):
            await is_set(self.stop, _TICK)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Unlike uvicorn's it takes no time where nobody is being answered."""
        self.stop_listening()
        connections: Any = list(self.server_state.connections)
        for connection in connections:
            connection.shutdown()
        ends = [asyncio.create_task(connection.gone.wait()) for connection in connections]
        if waited := {*ends, *self.server_state.tasks}:
            _, late = await asyncio.wait(waited, timeout=self.config.timeout_graceful_shutdown)
            for task in late:
                task.cancel()

    def stop_listening(self) -> None:
        for listener in self.servers:
            listener.close()

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


class _Cut:
    """The application; who is still being answered when the server ends is asked to come again."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        has_begun = False

        async def noted(message: Any) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except asyncio.CancelledError:
            if has_begun or scope["type"] != "http":
                raise
            await PlainTextResponse(_LATER, 503, {"Retry-After": "2"})(scope, receive, send)


class AsgiServer:
    """Serves an application on one address.

    `connections` are those of all ports that share a limit. `trusted_proxies` are the addresses
    and networks whose `X-Forwarded-For` says who their clients are. WebSockets are served where
    `largest_message`, in bytes, is not 0.
    """

    def __init__(
        self,
        app: Any,
        connections: Connections,
        *,
        trusted_proxies: Sequence[str] = (),
        largest_message: int = 0,
    ) -> None:
        web_socket: Any = partial(_web_socket, connections) if largest_message else "none"
        config = uvicorn.Config(
            _Cut(app),
            http=_Connection,
            lifespan="off",
            ws=web_socket,
            ws_max_size=largest_message,
            ws_ping_interval=_PING_INTERVAL,
            ws_ping_timeout=_PING_TIMEOUT,
            ws_per_message_deflate=False,  # a few bytes would become many here
            log_config=None,
            access_log=False,
            # Anybody else could choose the address that their tries are counted for.
            proxy_headers=bool(trusted_proxies),
            forwarded_allow_ips=list(trusted_proxies),
            server_header=False,
            timeout_graceful_shutdown=_GRACE,
            timeout_keep_alive=75,
        )
        self._server = _Server(config, connections)
        self._serving: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        """Where it listens."""
        listener: Any = self._server.servers[0]
        return listener.port

    async def start(self, hostname: str, port: int) -> None:
        """Listen. Raises OSError when the port is taken."""
        sockets = bound(hostname, port)
        self._serving = asyncio.create_task(self._server.serve(sockets=sockets))
        await ends_before(self._serving, self._server.listens)

    def stop_listening(self) -> None:
        """Accept nobody any more; who is connected stays."""
        self._server.stop_listening()

    async def close(self) -> None:
        if self._serving is not None:
            self._server.should_exit = True
            self._server.stop.set()
            await self._serving


def _web_socket(connections: Connections, **options: Any) -> asyncio.Protocol:
    # A megabyte, for doors that few use.
    from letta_matrix.doors.web.websockets import WebSocketConnection

    return WebSocketConnection(connections, **options)
