"""Sessions of Streamable HTTP that outlive the process they began in.

The SDK keeps sessions in memory and answers 404 to those it does not know. A client has to begin
anew then (MCP specification, basic/transports, session management), which the TypeScript SDK and
programs built on it do not do: one restart, and they fail until a person reconnects them. So a
session ends when its client ends it, and not before: one that is not in memory (the bridge was
restarted, nobody used it for long) is taken up again when its name says that it was made here, for
whoever asks.
"""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from mcp.server.auth.middleware.bearer_auth import AuthorizationContext
from mcp.server.auth.middleware.bearer_auth import authorization_context as owner_of
from mcp.server.lowlevel import Server
from mcp.server.streamable_http import MCP_SESSION_ID_HEADER, StreamableHTTPServerTransport
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.shared.inbound import MCP_PROTOCOL_VERSION_HEADER
from mcp_types import DEFAULT_NEGOTIATED_VERSION
from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope, Send

from letta_matrix.common.json_fields import mapping
from letta_matrix.doors.mcp.session_ids import SessionIds
from letta_matrix.doors.web.in_flight import behind

PER_TOKEN = 500
"""Sessions that a token may have at a time."""

_ENDED = 10_000
"""Sessions that their clients ended, of the latest, which must not come back."""

_LONGEST_HANDSHAKE = 100_000
"""Bytes; what is longer is no `initialize`."""

_Owner = AuthorizationContext


class LastingSessions(StreamableHTTPSessionManager):
    """The SDK's manager, with a bound on the sessions of each token, and sessions that are taken
    up again."""

    def __init__(self, app: Server[Any], ids: SessionIds, **options: Any) -> None:
        super().__init__(app, **options)
        self._ids = ids
        self._taking_up = asyncio.Lock()
        self._ended: dict[str, None] = {}

    @property
    def count(self) -> int:
        """The sessions in memory."""
        return len(self._server_instances)

    def _admit_session(self, requestor: _Owner | None) -> StreamableHTTPServerTransport | None:
        # Nobody comes without a token.
        if requestor is None:
            return None
        return self._admit(self._ids.make(requestor["client_id"]), requestor)

    def _admit(self, session_id: str, owner: _Owner) -> StreamableHTTPServerTransport | None:
        owners: Mapping[str, AuthorizationContext] = self._session_owners
        if sum(one == owner for one in owners.values()) >= PER_TOKEN:
            return None
        transport = super()._admit_session(owner)
        if transport is not None:
            given, transport.mcp_session_id = transport.mcp_session_id, session_id
            self._server_instances[session_id] = self._server_instances.pop(given or "")
            self._session_owners[session_id] = self._session_owners.pop(given or "")
        return transport

    async def _handle_stateful_request(self, scope: Scope, receive: Receive, send: Send) -> None:
        session_id = Headers(scope=scope).get(MCP_SESSION_ID_HEADER)
        if session_id is None:
            await super()._handle_stateful_request(scope, receive, send)
            return
        owner = owner_of(scope["user"])
        is_there = await self._is_there(session_id, owner, scope)
        if not is_there:
            first = await receive()
            receive = behind([first], receive)
            if _begins(scope, first):
                # Its client means to begin anew, and has not forgotten the old name.
                scope = _with(scope, {MCP_SESSION_ID_HEADER: None})
        await super()._handle_stateful_request(scope, receive, send)
        if is_there and scope["method"] == "DELETE" and session_id not in self._server_instances:
            self._note_ended(session_id)

    async def _is_there(self, session_id: str, owner: _Owner, scope: Scope) -> bool:
        """Whether a session of `owner` is in memory, or was taken up again."""
        # One by one: a session is in memory before its handshake is done.
        async with self._taking_up:
            if session_id in self._server_instances:
                return self._session_owners.get(session_id) == owner
            if session_id in self._ended or not self._ids.is_of(session_id, owner["client_id"]):
                return False
            return await self._take_up(session_id, owner, scope)

    async def _take_up(self, session_id: str, owner: _Owner, scope: Scope) -> bool:
        """Begin a session as its client once did, who is not asked and told nothing of it."""
        transport = self._admit(session_id, owner)
        if transport is None:
            return False
        version = Headers(scope=scope).get(MCP_PROTOCOL_VERSION_HEADER, DEFAULT_NEGOTIATED_VERSION)
        handshake = {
            "protocolVersion": version,
            "capabilities": {},
            "clientInfo": {"name": "unknown", "version": ""},
        }
        opening = {"id": "letta-matrix", "method": "initialize", "params": handshake}
        inner = _inner(scope, session_id, version)
        await self._serve_opening_request(transport, inner, _said(opening), _unheard)
        if session_id not in self._server_instances:
            return False
        done = {"method": "notifications/initialized"}
        await transport.handle_request(inner, _said(done), _unheard)
        return True

    def _note_ended(self, session_id: str) -> None:
        self._ended[session_id] = None
        if len(self._ended) > _ENDED:
            del self._ended[next(iter(self._ended))]


def _begins(scope: Scope, first: Message) -> bool:
    """Whether a request, whose whole body is in its first message, is `initialize`."""
    body: bytes = first.get("body", b"")
    if scope["method"] != "POST" or len(body) > _LONGEST_HANDSHAKE:
        return False
    try:
        return mapping(json.loads(body)).get("method") == "initialize"
    except (ValueError, RecursionError):
        return False


def _inner(scope: Scope, session_id: str, version: str) -> Scope:
    headers = {
        "content-type": "application/json",
        "accept": "application/json, text/event-stream",
        MCP_SESSION_ID_HEADER: session_id,
        MCP_PROTOCOL_VERSION_HEADER: version,
        "content-length": None,
        "transfer-encoding": None,
    }
    return {**_with(scope, headers), "method": "POST"}


def _with(scope: Scope, headers: Mapping[str, str | None]) -> Scope:
    """A request with other headers, or without those that are None."""
    changed = {name.lower().encode(): value for name, value in headers.items()}
    kept = [(name, value) for name, value in scope["headers"] if name not in changed]
    given = [(name, value.encode()) for name, value in changed.items() if value is not None]
    return {**scope, "headers": kept + given}


def _said(message: Mapping[str, object]) -> Receive:
    """A request's body, and then a client that stays."""
    body = json.dumps({"jsonrpc": "2.0", **message}).encode()
    ahead = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        if not ahead:
            await asyncio.Event().wait()
        return ahead.pop()

    return receive


async def _unheard(_message: Message) -> None:
    pass
