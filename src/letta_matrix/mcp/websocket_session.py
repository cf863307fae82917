"""One client of the WebSocket door: frames in and out of a session of the MCP server."""

import asyncio
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
from letta_matrix.mcp.caller import PRINCIPAL
from letta_matrix.mcp.core import Core
from letta_matrix.mcp.frames import (
    INTERNAL,
    NOT_ADMITTED,
    NOT_NOW,
    TEXT_ONLY,
    TOO_MANY,
    TOO_OFTEN,
    UNAUTHORIZED,
)
from letta_matrix.store.database import StoreUnavailable
from letta_matrix.toolbox.principal import Principal

log = structlog.get_logger()

_MOST_OPEN = 64
"""Requests of a client that wait for their answers at once."""
_PATIENCE = 30.0
"""Seconds a client may take to read a message."""

Incoming = MemoryObjectSendStream[SessionMessage | Exception]
Outgoing = MemoryObjectReceiveStream[SessionMessage]


@dataclass(frozen=True, slots=True)
class Visit:
    """What handlers see in place of the HTTP request."""

    scope: Mapping[str, Principal]
    headers: Mapping[str, str]


class Session:
    """Carries messages between a client and the server until one of them has gone.

    The token is looked at again for each message. `peer` is the client's address; `abort`
    cuts the connection.
    """

    def __init__(
        self,
        socket: web.WebSocketResponse,
        bearer: str,
        authenticator: Authenticator,
        core: Core,
        peer: str,
        abort: Callable[[], object],
    ) -> None:
        self._socket = socket
        self._bearer = bearer
        self._headers = {"authorization": f"Bearer {bearer}"}
        self._authenticator = authenticator
        self._core = core
        self._peer = peer
        self._abort = abort
        self._open: set[RequestId] = set()

    async def run(self) -> None:
        """Returns when the connection has ended."""
        incoming, read = anyio.create_memory_object_stream[SessionMessage | Exception](0)
        write, outgoing = anyio.create_memory_object_stream[SessionMessage](0)
        writing = asyncio.create_task(self._write(outgoing))
        serving = asyncio.create_task(self._serve(read, write))
        serving.add_done_callback(self._served)
        try:
            async with incoming:
                await self._read(incoming)
        finally:
            # The server ends at the end of what it reads, and then so does the writer.
            await asyncio.gather(serving, writing, return_exceptions=True)

    async def _serve(
        self,
        read: MemoryObjectReceiveStream[SessionMessage | Exception],
        write: MemoryObjectSendStream[SessionMessage],
    ) -> None:
        server = await self._core.server()
        await server.run(read, write, server.create_initialization_options())

    def _served(self, serving: asyncio.Task[None]) -> None:
        error = None if serving.cancelled() else serving.exception()
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
        """Hand a message to the server; whether the client may go on."""
        try:
            message = jsonrpc_message_adapter.validate_json(text, by_name=False)
        except ValidationError as error:
            message = error
        request_id = message.id if isinstance(message, JSONRPCRequest) else None
        awaits_answer = isinstance(message, JSONRPCRequest | ValidationError)
        try:
            principal = await self._authenticator.identify(self._bearer, self._peer)
            self._authenticator.count(principal)
        except (IdentityUnavailable, StoreUnavailable):
            text = "Your token cannot be checked now. Try again in a moment."
            return await self._refuse(awaits_answer, request_id, NOT_NOW, text)
        except TooOften as error:
            wait = {"retry_after": round(error.retry_after, 3)}
            return await self._refuse(awaits_answer, request_id, TOO_OFTEN, str(error), wait)
        except Unauthorized as error:
            await self._refuse(awaits_answer, request_id, NOT_ADMITTED, str(error))
            await self._socket.close(code=UNAUTHORIZED, message=str(error).encode()[:120])
            return False
        if isinstance(message, ValidationError):
            return await self._refuse(True, None, *_fault(message))
        if isinstance(message, JSONRPCRequest) and (why := self._no_room(message.id)):
            return await self._refuse(True, request_id, TOO_MANY, why)
        visit = Visit({PRINCIPAL: principal}, self._headers)
        await self._pass_on(message, visit, incoming)
        return True

    async def _pass_on(self, message: Any, visit: Visit, incoming: Incoming) -> None:
        metadata = ServerMessageMetadata(request_context=visit)
        if isinstance(message, JSONRPCRequest):
            request_id = message.id
            self._open.add(request_id)

            async def unanswered() -> None:
                self._open.discard(request_id)

            metadata.on_request_unanswered = unanswered
        try:
            await incoming.send(SessionMessage(message, metadata))
        except anyio.BrokenResourceError:
            await self._socket.close(code=INTERNAL, message=b"The session failed.")

    def _no_room(self, request_id: RequestId) -> str:
        if request_id in self._open:
            return "A request with this id is still open; give each one an id of its own."
        if len(self._open) >= _MOST_OPEN:
            return f"{_MOST_OPEN} of your requests are still open; wait for an answer."
        return ""

    async def _refuse(
        self,
        awaits_answer: bool,
        request_id: RequestId | None,
        code: int,
        text: str,
        data: object = None,
    ) -> bool:
        if awaits_answer:
            await self._send(_error(request_id, code, text, data))
        return True

    async def _write(self, outgoing: Outgoing) -> None:
        async with outgoing:
            async for item in outgoing:
                message = item.message
                await self._send(_text(message))
                if isinstance(message, JSONRPCResponse | JSONRPCError) and message.id is not None:
                    self._open.discard(message.id)

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


def _fault(error: ValidationError) -> tuple[int, str]:
    if any(one["type"] == "json_invalid" for one in error.errors(include_input=False)):
        return PARSE_ERROR, "This is no JSON."
    return INVALID_REQUEST, "This is no JSON-RPC 2.0 message."


def _error(request_id: RequestId | None, code: int, text: str, data: object) -> str:
    error = {"code": code, "message": text} | ({"data": data} if data is not None else {})
    return json.dumps({"jsonrpc": "2.0", "id": request_id, "error": error})
