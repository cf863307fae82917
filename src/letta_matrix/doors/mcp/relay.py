"""Stdio for MCP clients (MCP specification, basic/transports): a relay to the WebSocket door.

It loads nothing of the SDK, so that it starts quickly, and outlives restarts of the bridge: what
the client said to begin its session is said again to the new bridge.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, cast

import aiohttp

from letta_matrix.common import clock
from letta_matrix.common.json_fields import mapping
from letta_matrix.common.program import starting, typed
from letta_matrix.doors.mcp.frames import (
    LARGEST,
    LOST,
    NOT_NOW,
    SUBPROTOCOL,
    TOO_LARGE,
    UNAUTHORIZED,
)

_LOST = (
    "The connection to the bridge was lost. What you asked for may have happened or not: call "
    "again, with the same transaction_id if you gave one."
)
_AWAY = "The bridge does not answer now. Try again in a moment."
_OWN = "letta-matrix-relay-"
_PATIENCE = 10.0
"""Seconds that requests wait for a bridge which is away."""
_HANDSHAKE = 5.0
_PAUSES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_HEARTBEAT = 30.0
_FAREWELL = 1.5
"""Seconds for the last answers, once the client has said all it had to say."""

Json = dict[str, Any]


class RelayError(Exception):
    """The relay cannot go on; the text says why."""


class Relay:
    """Carries messages between a client, whose lines `lines` gives, and the bridge at `url`.

    `write` sends a line to the client, `say` tells people something.
    """

    def __init__(
        self, url: str, token: str, write: Callable[[str], None], say: Callable[[str], None]
    ) -> None:
        self._url = url
        self._token = token
        self._write = write
        self._say = say
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._connected = asyncio.Event()
        self._away_since = 0.0
        self._session = Session()

    async def run(self, lines: AsyncIterator[str]) -> None:
        """Returns at the end of the client's lines. Raises RelayError."""
        # A connection that is kept would lead to the bridge that ends.
        connector = aiohttp.TCPConnector(force_close=True)
        async with aiohttp.ClientSession(connector=connector) as http:
            socket = await self._connect(http, _PATIENCE)
            carrying = asyncio.create_task(self._carry_down(http, socket))
            taking = asyncio.create_task(self._carry_up(lines))
            done, rest = await asyncio.wait({carrying, taking}, return_when="FIRST_COMPLETED")
            for task in rest:
                task.cancel()
            await asyncio.gather(*rest, return_exceptions=True)
            if self._socket is not None:
                await self._socket.close()
            for task in done:
                task.result()

    async def _connect(
        self, http: aiohttp.ClientSession, patience: float
    ) -> aiohttp.ClientWebSocketResponse:
        """Connect, and begin the client's session again. Raises RelayError where that does not
        help, or nobody answers for so many seconds."""
        loop = asyncio.get_running_loop()
        began, pauses = loop.time(), iter(_PAUSES)
        while True:
            try:
                socket = await self._open(http)
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                if loop.time() - began >= patience:
                    raise RelayError(_unreachable(self._url, error)) from error
                await asyncio.sleep(next(pauses, _PAUSES[-1]))
            else:
                self._socket = socket
                self._connected.set()
                return socket

    async def _open(self, http: aiohttp.ClientSession) -> aiohttp.ClientWebSocketResponse:
        socket = await self._dial(http)
        try:
            for message in self._session.opening():
                await socket.send_str(message)
        except (aiohttp.ClientError, OSError):
            await socket.close()
            raise
        return socket

    async def _dial(self, http: aiohttp.ClientSession) -> aiohttp.ClientWebSocketResponse:
        headers = {"Authorization": f"Bearer {self._token}"}
        try:
            async with asyncio.timeout(_HANDSHAKE):
                return await http.ws_connect(
                    self._url,
                    headers=headers,
                    protocols=[SUBPROTOCOL],
                    heartbeat=_HEARTBEAT,
                    max_msg_size=0,
                )
        except aiohttp.InvalidURL:
            raise RelayError(f"{self._url} is no URL of a WebSocket") from None
        except aiohttp.WSServerHandshakeError as error:
            if error.status in (429, 502, 503, 504):
                raise
            raise RelayError(_refused(self._url, error.status)) from error

    async def _carry_down(
        self, http: aiohttp.ClientSession, socket: aiohttp.ClientWebSocketResponse
    ) -> None:
        """From the bridge to the client, for ever."""
        while True:
            async for frame in socket:
                if frame.type is aiohttp.WSMsgType.TEXT and self._session.hears(frame.data):
                    self._write(frame.data.replace("\n", " "))
            self._connected.clear()
            self._away_since = clock.now()
            for request_id in self._session.lost():
                self._write(_error(request_id, LOST, _LOST))
            if socket.close_code == UNAUTHORIZED:
                raise RelayError("the bridge no longer accepts the token")
            self._say("the bridge is away; connecting again")
            socket = await self._connect(http, float("inf"))
            self._say("the bridge is back")

    async def _carry_up(self, lines: AsyncIterator[str]) -> None:
        """From the client to the bridge, until the client has gone."""
        async for line in lines:
            message = _parsed(line)
            if len(line) > LARGEST // 4 and len(line.encode("utf-8", "replace")) > LARGEST:
                self._refuse(message, TOO_LARGE, f"More than {LARGEST} bytes in a message.")
            elif await self._is_there():
                await self._pass_on(message, line)
            else:
                self._refuse(message, NOT_NOW, _AWAY)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FAREWELL):
                while self._session.waits:  # noqa: ASYNC110 - the process ends here
                    await asyncio.sleep(0.02)

    async def _pass_on(self, message: Mapping[str, Any], line: str) -> None:
        self._session.says(message, line)
        # A connection that breaks now is noticed by the other direction, too.
        with contextlib.suppress(ConnectionError):
            if self._socket is not None:
                await self._socket.send_str(line)

    def _refuse(self, message: Mapping[str, Any], code: int, text: str) -> None:
        if "method" in message and "id" in message:
            self._write(_error(message["id"], code, text))

    async def _is_there(self) -> bool:
        deadline = self._away_since + _PATIENCE
        # When it is told of a connection, that may already be lost again.
        while not self._connected.is_set():
            try:
                async with asyncio.timeout_at(deadline):
                    await self._connected.wait()
            except TimeoutError:
                return False
        return True


class Session:
    """What a new bridge must be told of a client's session, and what the client waits for."""

    def __init__(self) -> None:
        self._initialize: Json | None = None
        self._initialized = ""
        self._agreed = False
        self._subscribed: dict[str, None] = {}
        self._waiting: dict[str | int, Json] = {}
        self._numbers = 0

    @property
    def waits(self) -> bool:
        """Whether the client waits for an answer."""
        return bool(self._waiting)

    def says(self, message: Mapping[str, Any], line: str) -> None:
        """The client says something."""
        method, request_id = message.get("method"), message.get("id")
        if method == "initialize" and isinstance(request_id, str | int):
            self._initialize, self._agreed = dict(message), False
        elif method == "notifications/initialized":
            self._initialized = line
        elif method == "notifications/cancelled":
            self._waiting.pop(_key(mapping(message.get("params")).get("requestId")), None)
        if isinstance(method, str) and isinstance(request_id, str | int):
            self._waiting[request_id] = dict(message)

    def hears(self, text: str) -> bool:
        """The bridge says something; whether it is for the client."""
        message = _parsed(text)
        request_id = message.get("id")
        if "method" in message or not isinstance(request_id, str | int):
            return True
        if isinstance(request_id, str) and request_id.startswith(_OWN):
            return False
        request = self._waiting.pop(request_id, {})
        if "result" in message:
            self._agree(request)
        return True

    def lost(self) -> list[str | int]:
        """The connection is lost: the requests that will have no answers. `initialize` will."""
        waiting, self._waiting = self._waiting, {}
        if self._initialize is not None and not self._agreed:
            waiting.pop(self._initialize["id"], None)
        return list(waiting)

    def opening(self) -> list[str]:
        """What a new bridge is told first."""
        if self._initialize is None:
            return []
        if not self._agreed:
            self._waiting[self._initialize["id"]] = self._initialize
            return [json.dumps(self._initialize)]
        messages = [json.dumps({**self._initialize, "id": self._own_id()})]
        messages += [self._initialized] if self._initialized else []
        return messages + [self._subscribe(uri) for uri in self._subscribed]

    def _agree(self, request: Json) -> None:
        """A request of the client went well."""
        uri = mapping(request.get("params")).get("uri")
        if request.get("method") == "initialize":
            self._agreed = True
        elif request.get("method") == "resources/subscribe" and isinstance(uri, str):
            self._subscribed[uri] = None
        elif request.get("method") == "resources/unsubscribe":
            self._subscribed.pop(str(uri), None)

    def _subscribe(self, uri: str) -> str:
        message = {"jsonrpc": "2.0", "id": self._own_id(), "method": "resources/subscribe"}
        return json.dumps({**message, "params": {"uri": uri}})

    def _own_id(self) -> str:
        self._numbers += 1
        return f"{_OWN}{self._numbers}"


def _key(value: object) -> str | int:
    return value if isinstance(value, str | int) else ""


def _parsed(text: str) -> Mapping[str, Any]:
    """A message, or nothing for what the bridge will refuse."""
    try:
        return mapping(cast("object", json.loads(text)))
    except (ValueError, RecursionError):
        return {}


def _error(request_id: object, code: int, text: str) -> str:
    error = {"code": code, "message": text}
    return json.dumps({"jsonrpc": "2.0", "id": request_id, "error": error})


def _unreachable(url: str, error: Exception) -> str:
    reason = str(error) or "it takes too long"
    return f"no bridge answers at {url}: {reason}; is `{starting()}` or `run` running?"


def _refused(url: str, status: int) -> str:
    if status == 401:
        making = typed(["tokens", "create"])
        return f"the bridge does not accept the token; make one by `{making}`"
    return f"{url} does not take MCP connections from here: status {status}"
