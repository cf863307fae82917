"""One client of the WebSocket door: frames in and out of a session of the MCP server."""

import asyncio
import contextlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import anyio
import structlog
from aiohttp import WSMsgType, web
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.shared.message import ServerMessageMetadata, SessionMessage
from mcp_types import (
    INVALID_REQUEST,
    PARSE_ERROR,
    JSONRPCError,
    JSONRPCMessage,
    JSONRPCRequest,
    JSONRPCResponse,
    RequestId,
    jsonrpc_message_adapter,
)
from pydantic import ValidationError
from pydantic_core import PydanticSerializationError

from letta_matrix.access.authenticator import (
    Authenticator,
    IdentityUnavailable,
    TooOften,
    Unauthorized,
)
from letta_matrix.access.principal import Principal
from letta_matrix.common.parts import part
from letta_matrix.doors.mcp.caller import PRINCIPAL, TOOLSET
from letta_matrix.doors.mcp.core import Core
from letta_matrix.doors.mcp.frames import (
    INTERNAL,
    NOT_ADMITTED,
    NOT_NOW,
    TEXT_ONLY,
    TOO_MANY,
    TOO_OFTEN,
    UNAUTHORIZED,
)
from letta_matrix.doors.web.in_flight import InFlight, TooMuchInFlight
from letta_matrix.store.database import StoreUnavailable
from letta_matrix.toolbox.toolsets import Toolset

log = structlog.get_logger()

_MOST_OPEN = 64
"""Requests of a client that wait for their answers at once."""
_RECHECK = 5.0
"""Seconds between looks at the token while nothing comes."""
_PATIENCE = 30.0
"""Seconds a client may take to read a message."""

Incoming = MemoryObjectSendStream[SessionMessage | Exception]
Outgoing = MemoryObjectReceiveStream[SessionMessage]


class _Refusal(Exception):
    """What a client sent is not handed to the server; `data` tells programs more."""

    def __init__(self, code: int, text: str, data: object = None) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self._data = data

    def answer(self, request_id: RequestId | None) -> str:
        """The JSON-RPC error."""
        error: dict[str, object] = {"code": self.code, "message": self.text}
        error |= {"data": self._data} if self._data is not None else {}
        return json.dumps({"jsonrpc": "2.0", "id": request_id, "error": error})


@dataclass(frozen=True, slots=True)
class Visit:
    """What handlers see in place of the HTTP request."""

    scope: Mapping[str, object]
    headers: Mapping[str, str]


@part
class Session:
    """Carries messages between a client and the server until one of them has gone.

    The token is looked at again for each message and each answer, and while nothing comes.
    `caller` is whose it is and `peer` the address they come from; `abort` cuts the connection;
    `in_flight` is what large messages share with the other doors.
    """

    _socket: web.WebSocketResponse
    _bearer: str
    _caller: str
    _authenticator: Authenticator
    _core: Core
    _peer: str
    _toolset: Toolset
    _abort: Callable[[], object]
    _in_flight: InFlight

    def __post_init__(self) -> None:
        self._headers = {"authorization": f"Bearer {self._bearer}"}
        self._open: dict[RequestId, contextlib.AsyncExitStack] = {}

    async def run(self) -> None:
        """Returns when the connection has ended."""
        incoming, read = anyio.create_memory_object_stream[SessionMessage | Exception](0)
        write, outgoing = anyio.create_memory_object_stream[SessionMessage](0)
        writing = asyncio.create_task(self._write(outgoing))
        serving = asyncio.create_task(self._serve(read, write))
        watching = asyncio.create_task(self._watch())
        for task in (writing, serving, watching):
            task.add_done_callback(self._ended)
        try:
            async with incoming:
                await self._read(incoming)
        finally:
            watching.cancel()
            # The server ends at the end of what it reads, and then so does the writer.
            await asyncio.gather(serving, writing, watching, return_exceptions=True)
            for request_id in list(self._open):
                await self._closed(request_id)

    async def _serve(
        self,
        read: MemoryObjectReceiveStream[SessionMessage | Exception],
        write: MemoryObjectSendStream[SessionMessage],
    ) -> None:
        server = await self._core.server()
        await server.run(read, write, server.create_initialization_options())

    def _ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            log.error("a session of an MCP client failed", exc_info=error)
            self._abort()

    async def _read(self, incoming: Incoming) -> None:
        async for frame in self._socket:
            if frame.type is WSMsgType.BINARY:
                await self._socket.close(code=TEXT_ONLY, message=b"Send text frames.")
            if frame.type is not WSMsgType.TEXT or not await self._take(frame.data, incoming):
                return

    async def _take(self, text: str, incoming: Incoming) -> bool:
        """Hand a message to the server; whether the client may go on. The next one is not read
        before."""
        async with contextlib.AsyncExitStack() as held:
            try:
                await held.enter_async_context(self._in_flight.held(self._caller, len(text)))
            except TooMuchInFlight as error:
                wait = {"retry_after": error.retry_after}
                return await self._refuse(_message(text), _Refusal(NOT_NOW, str(error), wait))
            message = _message(text)
            try:
                principal = await self._admitted()
                self._check(message)
            except _Refusal as refusal:
                return await self._refuse(message, refusal)
            visit = Visit({PRINCIPAL: principal, TOOLSET: self._toolset}, self._headers)
            await self._pass_on(message, visit, held, incoming)
        return True

    async def _refuse(self, message: JSONRPCMessage | ValidationError, refusal: _Refusal) -> bool:
        """Answer what the server does not get; whether the client may go on."""
        request_id = message.id if isinstance(message, JSONRPCRequest) else None
        if request_id is not None or isinstance(message, ValidationError):
            await self._send(refusal.answer(request_id))
        if refusal.code == NOT_ADMITTED:
            await self._expel(refusal.text)
        return refusal.code != NOT_ADMITTED

    async def _admitted(self) -> Principal:
        """Whose token it is, at every message. Raises _Refusal."""
        try:
            principal = await self._authenticator.identify(self._bearer, self._peer)
            self._authenticator.count(principal)
        except (IdentityUnavailable, StoreUnavailable) as error:
            text = "Your token cannot be checked now. Try again in a moment."
            raise _Refusal(NOT_NOW, text) from error
        except TooOften as error:
            wait = {"retry_after": round(error.retry_after, 3)}
            raise _Refusal(TOO_OFTEN, str(error), wait) from error
        except Unauthorized as error:
            raise _Refusal(NOT_ADMITTED, str(error)) from error
        return principal

    def _check(self, message: JSONRPCMessage | ValidationError) -> None:
        """Raises _Refusal for what the server must not see."""
        if isinstance(message, ValidationError):
            raise _fault(message)
        if not isinstance(message, JSONRPCRequest):
            return
        if message.id in self._open:
            text = "A request with this id is still open; give each one an id of its own."
            raise _Refusal(TOO_MANY, text)
        if len(self._open) >= _MOST_OPEN:
            text = f"{_MOST_OPEN} of your requests are still open; wait for an answer."
            raise _Refusal(TOO_MANY, text)

    async def _pass_on(
        self, message: Any, visit: Visit, held: contextlib.AsyncExitStack, incoming: Incoming
    ) -> None:
        metadata = ServerMessageMetadata(request_context=visit)
        if isinstance(message, JSONRPCRequest):
            request_id = message.id
            self._open[request_id] = held.pop_all()

            async def unanswered() -> None:
                await self._closed(request_id)

            metadata.on_request_unanswered = unanswered
        try:
            await incoming.send(SessionMessage(message, metadata))
        except anyio.BrokenResourceError:
            await self._socket.close(code=INTERNAL, message=b"The session failed.")

    async def _write(self, outgoing: Outgoing) -> None:
        async with outgoing:
            async for item in outgoing:
                message = item.message
                if isinstance(message, JSONRPCResponse | JSONRPCError) and message.id is not None:
                    await self._answer(message.id, _text(message))
                else:
                    await self._send(_text(message))

    async def _watch(self) -> None:
        """Expel a client whose token is good no more, also one that says nothing."""
        while True:
            await asyncio.sleep(_RECHECK)
            if why := await self._revoked():
                await self._expel(why)
                return

    async def _answer(self, request_id: RequestId, text: str) -> None:
        """Send an answer, if the token is still good."""
        if why := await self._revoked():
            await self._expel(why)
        else:
            await self._send(text)
        await self._closed(request_id)

    async def _closed(self, request_id: RequestId) -> None:
        if (held := self._open.pop(request_id, None)) is not None:
            await held.aclose()

    async def _revoked(self) -> str:
        """Why the token is not accepted any more, "" if it is, or if that cannot be told now."""
        try:
            await self._authenticator.identify(self._bearer, self._peer)
        except (IdentityUnavailable, StoreUnavailable, TooOften):
            return ""
        except Unauthorized as error:
            return str(error)
        return ""

    async def _expel(self, why: str) -> None:
        await self._socket.close(code=UNAUTHORIZED, message=why.encode()[:120])

    async def _send(self, text: str) -> None:
        """Send a message to a client that may have gone; one that does not read is cut off."""
        if self._socket.closed:
            return
        try:
            async with asyncio.timeout(_PATIENCE):
                await self._socket.send_str(text)
        except TimeoutError:
            log.warning("an MCP client does not read what it gets")
            self._abort()
        except ConnectionError:
            return


def _text(message: Any) -> str:
    try:
        return message.model_dump_json(by_alias=True, exclude_unset=True)
    except PydanticSerializationError:
        # Surrogates without their other half, which JSON can carry and UTF-8 cannot.
        log.warning("an answer to an MCP client is mended")
        return json.dumps(message.model_dump(by_alias=True, exclude_unset=True))


def _message(text: str) -> JSONRPCMessage | ValidationError:
    try:
        return jsonrpc_message_adapter.validate_json(text, by_name=False)
    except ValidationError as error:
        return error


def _fault(error: ValidationError) -> _Refusal:
    if any(one["type"] == "json_invalid" for one in error.errors(include_input=False)):
        return _Refusal(PARSE_ERROR, "This is no JSON.")
    return _Refusal(INVALID_REQUEST, "This is no JSON-RPC 2.0 message.")
