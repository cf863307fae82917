"""An HTTP server for an ASGI application, in this process."""

import asyncio
import socket
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from letta_matrix.waiting import is_set

_LONGEST_HEAD = 256_000
_HEAD_SECONDS = 20.0
_TICK = 1.0
_MOST_CONNECTIONS = 1_000


class _Connection(HttpToolsProtocol):
    """Hangs up on heads, trailers and chunk lines without end, which uvicorn would keep in memory,
    and on heads that take too long. Trailers (RFC 9110 section 6.5) are dropped."""

    _in_head = True
    _unfinished = 0
    _heads = 0
    _heads_before = 0
    _look: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._look_later()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._look is not None:
            self._look.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        # What is whole in `data`, a head or a piece of a body, takes this back.
        self._unfinished += len(data)
        super().data_received(data)
        if self._unfinished > _LONGEST_HEAD:
            self.transport.close()

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
        answering = bool(self.cycle) and not self.cycle.response_complete
        begun = self._unfinished > 0 or self._heads == 0
        if self._in_head and begun and not answering and self._heads == self._heads_before:
            self.transport.close()
            return
        self._heads_before = self._heads
        self._look_later()


class _Server(uvicorn.Server):
    """Leaves signals to whoever runs the process, and looks about once a second, not ten times:
    an idle bridge is to sleep."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.stop = asyncio.Event()

    async def main_loop(self) -> None:
        # Zero: each time is one at which the `Date` header is made anew.
        while not await self.on_tick(0):
            await is_set(self.stop, _TICK)

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


class AsgiServer:
    """Serves an application on one address.

    `grace` is how many seconds requests in progress have at the end. `trusted_proxies` are the
    addresses and networks whose `X-Forwarded-For` says who their clients are.
    """

    def __init__(
        self, app: Any, *, grace: float = 1.0, trusted_proxies: Sequence[str] = ()
    ) -> None:
        config = uvicorn.Config(
            app,
            http=_Connection,
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,
            # Anybody else could choose the address that their tries are counted for.
            proxy_headers=bool(trusted_proxies),
            forwarded_allow_ips=list(trusted_proxies),
            limit_concurrency=_MOST_CONNECTIONS,
            server_header=False,
            timeout_graceful_shutdown=max(1, round(grace)),
            timeout_keep_alive=75,
        )
        self._server = _Server(config)
        self._serving: asyncio.Task[None] | None = None

    async def start(self, hostname: str, port: int) -> None:
        """Listen. Raises OSError when the port is taken."""
        listener = _bound(hostname, port)
        self._serving = asyncio.create_task(self._server.serve(sockets=[listener]))
        while not self._server.started and not self._serving.done():  # noqa: ASYNC110
            await asyncio.sleep(0.005)

    async def close(self) -> None:
        if self._serving is not None:
            self._server.should_exit = True
            self._server.stop.set()
            await self._serving


def _bound(hostname: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(
        hostname, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(2048)
    except OSError:
        listener.close()
        raise
    listener.setblocking(False)
    return listener
