"""One WebSocket to the App Server, made again whenever it breaks."""

import asyncio
import contextlib
import random
from collections.abc import Callable, Sequence

import aiohttp

from letta_matrix.common.backoff import Backoff
from letta_matrix.common.connections.known_servers import CheckedConnector, KnownServer
from letta_matrix.common.connections.unreached import why_unreached
from letta_matrix.common.parts import part
from letta_matrix.runtimes.bounds import LARGEST

REMOTE_HEARTBEAT = 30.0
CONNECT_TIMEOUT = 15.0
_PAUSES = Backoff(0.1, longest=10.0, growth=1.5)

_TOO_LARGE = f"the App Server sent a frame of more than {LARGEST // 1024**2} MiB"

_Receive = Callable[["Upstream", bytes], None]
_Change = Callable[["Upstream"], None]


def websocket_url(url: str) -> str:
    """Where an App Server's WebSocket is."""
    base, mark, query = url.partition("?")
    base = base.rstrip("/")
    return (base if base.endswith("/ws") else f"{base}/ws") + mark + query


@part
class Upstream:
    """A connection that comes back by itself, with pauses from 0.1 s to 10 s.

    `receive` gets every text frame, `change` is called after each change of `up`. `known` is the
    server that has to be there, if that is known.
    """

    _url: str
    _token: str | None
    _receive: _Receive
    _change: _Change
    _remote: bool
    _known: Sequence[KnownServer]

    def __post_init__(self) -> None:
        self.up = False
        self.reason = "not connected yet"
        self.refused = False
        self._headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        # A busy App Server on this machine answers no ping for seconds, yet a connection
        # dropped for that would wedge its turns; a dead local peer closes its socket.
        self._heartbeat = REMOTE_HEARTBEAT if self._remote else None
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._task = asyncio.create_task(self._run())

    async def send(self, text: bytes) -> None:
        """Send a text frame, nowhere if the connection is down."""
        if self._socket is not None and not self._socket.closed:
            with contextlib.suppress(aiohttp.ClientError, OSError):
                await self._socket.send_frame(text, aiohttp.WSMsgType.TEXT)

    async def close(self) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _run(self) -> None:
        pauses = iter(_PAUSES)
        async with aiohttp.ClientSession(
            connector=CheckedConnector(self._known), headers=self._headers
        ) as session:
            while True:
                if await self._hold(session):
                    pauses = iter(_PAUSES)
                await asyncio.sleep(next(pauses) * random.uniform(0.6, 1.0))  # noqa: S311 (jitter)

    async def _hold(self, session: aiohttp.ClientSession) -> bool:
        """Connect and read until the connection ends; whether it was ever up."""
        was_up = False
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                socket = await session.ws_connect(
                    self._url, max_msg_size=LARGEST, heartbeat=self._heartbeat, autoping=True
                )
            was_up = True
            self._set(socket, "")
            await self._read(socket)
            too_large = socket.close_code == aiohttp.WSCloseCode.MESSAGE_TOO_BIG
            reason = _TOO_LARGE if too_large else "the App Server closed the connection"
        except aiohttp.WSServerHandshakeError as error:
            # A page is a proxy's, and says nothing about our token.
            is_page = "html" in (error.headers or {}).get("Content-Type", "")
            self.refused = error.status in (401, 403) and not is_page
            reason = f"the App Server answered HTTP {error.status}"
        except TimeoutError:
            reason = "the App Server does not answer"
        except (aiohttp.ClientError, OSError) as error:
            reason = why_unreached(error)
        self._set(None, reason)
        return was_up

    async def _read(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        try:
            async for message in socket:
                if message.type is aiohttp.WSMsgType.TEXT:
                    self._receive(self, message.data.encode())
        finally:
            await socket.close()

    def _set(self, socket: aiohttp.ClientWebSocketResponse | None, reason: str) -> None:
        self._socket = socket
        self.up = socket is not None
        self.reason = reason
        if self.up:
            self.refused = False
        self._change(self)
