"""One client of the WebSocket door: frames in and out of a session of the MCP server."""

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import mcp_types as types
import structlog
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.server.lowlevel import Server
from mcp.shared.exceptions import MCPError
from mcp.shared.message import ServerMessageMetadata, SessionMessage
from pydantic import ValidationError
from pydantic_core import PydanticSerializationError
from starlette.requests import HTTPConnection
from starlette.websockets import WebSocket, WebSocketDisconnect

from letta_matrix.common import mcp_frames as frames
from letta_matrix.common.parts import part
from letta_matrix.doors.mcp.caller import PRINCIPAL, TOOLSET
from letta_matrix.doors.mcp.refusals import REFUSED
from letta_matrix.doors.mcp.rpc_errors import refused
from letta_matrix.doors.mcp.services import Services
from letta_matrix.doors.web.websockets import FAREWELL

log = structlog.get_logger()

_MOST_OPEN = 64
"""Requests of a client that wait for their answers at once."""
_PATIENCE = 30.0
"""Seconds a client may take to read a message."""

Incoming = MemoryObjectSendStream[SessionMessage | Exception]
Outgoing = MemoryObjectReceiveStream[SessionMessage]


@part
class Session:
    """Carries messages between a client and the server until one of them has gone.

    The token is looked at again for each message and each answer. `caller` is whose it is,
    `peer` the address they come from, and `refusal` tells why the token is accepted no more.
    """

    _socket: WebSocket
    _bearer: str
    _caller: str
    _peer: str
    _server: Server[Any]
    _services: Services
    _refusal: Callable[[], Awaitable[str]]

    def __post_init__(self) -> None:
        self._open: dict[types.RequestId, contextlib.AsyncExitStack] = {}

    async def run(self) -> None:
        """Returns when the connection has ended."""
        incoming, read = anyio.create_memory_object_stream[SessionMessage | Exception](0)
        write, outgoing = anyio.create_memory_object_stream[SessionMessage](0)
        try:
            async with anyio.create_task_group() as tasks, incoming:
                options = self._server.create_initialization_options()
                tasks.start_soon(self._server.run, read, write, options)
                tasks.start_soon(self._write, outgoing)
                # The server ends at the end of what it reads, and then so does the writer.
                await self._read(incoming)
        except* Exception as failed:
            log.error("a session of an MCP client failed", exc_info=failed.exceptions[0])
            await self._close(frames.INTERNAL, "The session failed.")
        finally:
            for request_id in list(self._open):
                await self._closed(request_id)

    async def _close(self, code: int, why: str) -> None:
        """Say goodbye. Who does not answer is cut off."""
        connection = self._socket.scope["state"]["connection"]
        try:
            async with asyncio.timeout(FAREWELL):
                await self._socket.close(code, why.encode()[:120].decode(errors="ignore"))
                await connection.gone.wait()
        except TimeoutError:
            connection.hang_up()
        except (WebSocketDisconnect, RuntimeError):
            return  # somebody else was first

    async def end(self, why: str) -> None:
        """Close it, as its token is accepted no more, or "" as the bridge ends."""
        await self._close(
            frames.UNAUTHORIZED if why else frames.GOING_AWAY, why or "The bridge ends."
        )

    async def _read(self, incoming: Incoming) -> None:
        while (frame := await self._socket.receive())["type"] == "websocket.receive":
            if (text := frame.get("text")) is None:
                await self._close(frames.TEXT_ONLY, "Send text frames.")
                return
            await self._take(text, incoming)

    async def _take(self, text: str, incoming: Incoming) -> None:
        """Hand a message to the server. The next one is not read before."""
        message: types.JSONRPCMessage | ValidationError | None = None
        async with contextlib.AsyncExitStack() as held:
            try:
                in_flight = self._services.in_flight.held(self._caller, len(text))
                await held.enter_async_context(in_flight)
                message = _message(text)
                visit = await self._visit()
                self._check(message)
            except REFUSED as error:
                await self._refuse(message or _message(text), refused(error))
            except MCPError as error:
                await self._refuse(message, error)
            else:
                await self._pass_on(message, visit, held, incoming)

    async def _refuse(self, message: object, error: MCPError) -> None:
        """Answer what the server does not get."""
        request_id = message.id if isinstance(message, types.JSONRPCRequest) else None
        if request_id is not None or isinstance(message, ValidationError):
            answer = types.JSONRPCError(jsonrpc="2.0", id=request_id, error=error.error)
            await self._send(_text(answer))
        if error.error.code == frames.NOT_ADMITTED:
            await self.end(error.error.message)

    async def _visit(self) -> HTTPConnection[Any]:
        """What handlers see in place of an HTTP request. Raises what is in `REFUSED`."""
        authenticator = self._services.authenticator
        principal = await authenticator.identify(self._bearer, self._peer)
        authenticator.count(principal)
        headers = [(b"authorization", f"Bearer {self._bearer}".encode("latin-1"))]
        known = {PRINCIPAL: principal, TOOLSET: self._socket.scope[TOOLSET]}
        return HTTPConnection({"type": "http", "headers": headers, **known})

    def _check(self, message: types.JSONRPCMessage | ValidationError) -> None:
        """Raises MCPError for what the server must not see."""
        if isinstance(message, ValidationError):
            raise _fault(message)
        if not isinstance(message, types.JSONRPCRequest):
            return
        if message.id in self._open:
            text = "A request with this id is still open; give each one an id of its own."
            raise MCPError(frames.TOO_MANY, text)
        if len(self._open) >= _MOST_OPEN:
            text = f"{_MOST_OPEN} of your requests are still open; wait for an answer."
            raise MCPError(frames.TOO_MANY, text)

    async def _pass_on(
        self, message: Any, visit: object, held: contextlib.AsyncExitStack, incoming: Incoming
    ) -> None:
        metadata = ServerMessageMetadata(request_context=visit)
        if isinstance(message, types.JSONRPCRequest):
            request_id = message.id
            self._open[request_id] = held.pop_all()

            async def unanswered() -> None:
                await self._closed(request_id)

            metadata.on_request_unanswered = unanswered
        await incoming.send(SessionMessage(message, metadata))

    async def _write(self, outgoing: Outgoing) -> None:
        async with outgoing:
            async for item in outgoing:
                await self._tell(item.message)

    async def _tell(self, message: types.JSONRPCMessage) -> None:
        """Send a message; an answer only if the token is still good."""
        if not isinstance(message, types.JSONRPCResponse | types.JSONRPCError):
            await self._send(_text(message))
            return
        if why := await self._refusal():
            await self.end(why)
        else:
            await self._send(_text(message))
        if message.id is not None:
            await self._closed(message.id)

    async def _closed(self, request_id: types.RequestId) -> None:
        if (held := self._open.pop(request_id, None)) is not None:
            await held.aclose()

    async def _send(self, text: str) -> None:
        """Send a message to a client that may have gone; one that does not read is cut off."""
        try:
            async with asyncio.timeout(_PATIENCE):
                await self._socket.send_text(text)
        except TimeoutError:
            log.warning("an MCP client does not read what it gets")
            self._socket.scope["state"]["connection"].hang_up()
        except (WebSocketDisconnect, RuntimeError):
            return  # it has gone, or is being closed


def _text(message: Any) -> str:
    try:
        return message.model_dump_json(by_alias=True, exclude_unset=True)
    except PydanticSerializationError:
        # Surrogates without their other half, which JSON can carry and UTF-8 cannot.
        log.warning("an answer to an MCP client is mended")
        return json.dumps(message.model_dump(by_alias=True, exclude_unset=True))


def _message(text: str) -> types.JSONRPCMessage | ValidationError:
    try:
        return types.jsonrpc_message_adapter.validate_json(text, by_name=False)
    except ValidationError as error:
        return error


def _fault(error: ValidationError) -> MCPError:
    if any(one["type"] == "json_invalid" for one in error.errors(include_input=False)):
        return MCPError(types.PARSE_ERROR, "This is no JSON.")
    return MCPError(types.INVALID_REQUEST, "This is no JSON-RPC 2.0 message.")
