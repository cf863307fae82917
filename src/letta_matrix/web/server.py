"""An HTTP server for an ASGI application, in this process."""

import asyncio
import socket
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_LONGEST_HEAD = 256_000


class _Connection(HttpToolsProtocol):
    """Hangs up on requests whose head does not end: uvicorn would keep all of it in memory."""

    _in_head = True
    _head = 0

    def data_received(self, data: bytes) -> None:
        # A head that ends in `data` takes this back: the rest of it is body.
        self._head += len(data)
        super().data_received(data)
        if self._in_head and self._head > _LONGEST_HEAD:
            self.transport.close()

    def on_headers_complete(self) -> None:
        self._in_head, self._head = False, 0
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._in_head, self._head = True, 0
        super().on_message_complete()


class _Server(uvicorn.Server):
    """Leaves signals to whoever runs the process."""

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


class AsgiServer:
    """Serves an application on one address.

    `grace` is how many seconds requests in progress have at the end.
    """

    def __init__(self, app: Any, *, grace: float = 1.0) -> None:
        config = uvicorn.Config(
            app,
            http=_Connection,
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,
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
