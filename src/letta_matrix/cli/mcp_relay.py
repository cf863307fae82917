"""Stdio for MCP clients (MCP specification, basic/transports): a relay to the WebSocket door.

It loads nothing of the SDK, so that it starts quickly, and outlives restarts of the bridge: what
the client said to begin its session is said again to the new bridge.
"""

import asyncio
import contextlib
import itertools
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Mapping
from typing import Any, cast

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, InvalidURI, WebSocketException
from websockets.typing import Subprotocol

from letta_matrix.common import clock
from letta_matrix.common import mcp_frames as frames
from letta_matrix.common.connections.unreached import why_unreached
from letta_matrix.common.json_fields import mapping
from letta_matrix.common.program import starting, typed
from letta_matrix.common.waiting import is_set

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
        self._socket: ClientConnection | None = None
        self._connected = asyncio.Event()
        self._away_since = clock.now()
        self._session = Session()

    async def run(self, lines: AsyncIterator[str]) -> None:
        """Returns at the end of the client's lines. Raises RelayError."""
        carrying = asyncio.create_task(self._carry_down())
        taking = asyncio.create_task(self._carry_up(lines))
        done, rest = await asyncio.wait({carrying, taking}, return_when="FIRST_COMPLETED")
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        for task in done:
            task.result()

    async def _carry_down(self) -> None:
        """From the bridge to the client, for ever. Raises RelayError."""
        async with contextlib.aclosing(self._sockets()) as sockets:
            async for socket in sockets:
                with contextlib.suppress(ConnectionClosed):
                    for message in self._session.opening():
                        await socket.send(message)
                    self._is_back(socket)
                    async for text in socket:
                        if isinstance(text, str) and self._session.hears(text):
                            self._write(text.replace("\n", " "))
                self._is_away(socket)

    def _sockets(self) -> AsyncGenerator[ClientConnection]:
        """A connection, and another one whenever it is lost."""
        try:
            connecting = connect(
                re.sub("^http", "ws", self._url),
                additional_headers={"Authorization": f"Bearer {self._token}"},
                subprotocols=[Subprotocol(frames.SUBPROTOCOL)],
                compression=None,
                proxy=None,
                open_timeout=_HANDSHAKE,
                ping_interval=_HEARTBEAT,
                ping_timeout=_HEARTBEAT / 2,
                max_size=None,
                reconnect_delays=_pauses,
                process_exception=self._judge,
            )
        except InvalidURI:
            raise RelayError(f"{self._url} is no URL of a WebSocket") from None
        # It is a generator, and closes the connection when it is closed.
        return cast("AsyncGenerator[ClientConnection]", aiter(connecting))

    def _judge(self, error: Exception) -> Exception | None:
        """What a try to connect has failed of for good; None where it is tried again."""
        if isinstance(error, InvalidStatus):
            status = error.response.status_code
            if status not in (429, 502, 503, 504):
                return RelayError(_refused(self._url, status))
        elif not isinstance(error, OSError | WebSocketException):
            return error
        # Nobody waits for a bridge that has never been there.
        if self._socket is None and clock.now() - self._away_since >= _PATIENCE:
            return RelayError(_unreachable(self._url, error))
        return None

    def _is_back(self, socket: ClientConnection) -> None:
        if self._socket is not None:
            self._say("the bridge is back")
        self._socket = socket
        self._connected.set()

    def _is_away(self, socket: ClientConnection) -> None:
        for request_id in self._session.lost():
            self._write(_error(request_id, frames.LOST, _LOST))
        if socket.close_code == frames.UNAUTHORIZED:
            raise RelayError("the bridge no longer accepts the token")
        if self._connected.is_set():
            self._connected.clear()
            self._away_since = clock.now()
            self._say("the bridge is away; connecting again")

    async def _carry_up(self, lines: AsyncIterator[str]) -> None:
        """From the client to the bridge, until the client has gone."""
        await self._connected.wait()
        async for line in lines:
            message = _parsed(line)
            if (
                len(line) > frames.LARGEST // 4
                and len(line.encode("utf-8", "replace")) > frames.LARGEST
            ):
                self._refuse(
                    message, frames.TOO_LARGE, f"More than {frames.LARGEST} bytes in a message."
                )
            elif await self._is_there():
                await self._pass_on(message, line)
            else:
                self._refuse(message, frames.NOT_NOW, _AWAY)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FAREWELL):
                while self._session.waits:  # noqa: ASYNC110 - the process ends here
                    await asyncio.sleep(0.02)

    async def _pass_on(self, message: Mapping[str, Any], line: str) -> None:
        self._session.says(message, line)
        # A connection that breaks now is noticed by the other direction, too.
        with contextlib.suppress(ConnectionClosed):
            if self._socket is not None:
                await self._socket.send(line)

    def _refuse(self, message: Mapping[str, Any], code: int, text: str) -> None:
        if "method" in message and "id" in message:
            self._write(_error(message["id"], code, text))

    async def _is_there(self) -> bool:
        deadline = self._away_since + _PATIENCE
        # When it is told of a connection, that may already be lost again.
        while not self._connected.is_set():
            if not await is_set(self._connected, deadline - clock.now()):
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
        self._numbers = itertools.count(1)

    @property
    def waits(self) -> bool:
        """Whether the client waits for an answer."""
        return bool(self._waiting)

    def says(self, message: Mapping[str, Any], line: str) -> None:
        """The client says something."""
        method, request_id = message.get("method"), message.get("id")
        if method == "notifications/initialized":
            self._initialized = line
        elif method == "notifications/cancelled":
            self._waiting.pop(_key(mapping(message.get("params")).get("requestId")), None)
        if isinstance(method, str) and isinstance(request_id, str | int):
            self._waiting[request_id] = dict(message)
            if method == "initialize":
                self._initialize, self._agreed = dict(message), False

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
        return f"{_OWN}{next(self._numbers)}"


def _pauses() -> Generator[float]:
    yield from itertools.chain(_PAUSES, itertools.repeat(_PAUSES[-1]))


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
    return (
        f"no bridge answers at {url}: {why_unreached(error)}; is `{starting()}` or `run` running?"
    )


def _refused(url: str, status: int) -> str:
    if status == 401:
        making = typed(["tokens", "create"])
        return f"the bridge does not accept the token; make one by `{making}`"
    return f"{url} does not take MCP connections from here: status {status}"
