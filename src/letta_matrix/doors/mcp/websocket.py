"""The WebSocket door of the MCP server, a transport of our own.

JSON-RPC 2.0, one message in each text frame, subprotocol `mcp` (RFC 6455). docs/how-to/mcp.md
specifies it for clients.
"""

import asyncio
from typing import TYPE_CHECKING

from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from letta_matrix.access.authenticator import bearer_of
from letta_matrix.access.guard import mcp_guard
from letta_matrix.common.connections.admission import Connections
from letta_matrix.doors.mcp.caller import TOOLSET, toolset_in
from letta_matrix.doors.mcp.core import Core
from letta_matrix.doors.mcp.frames import GOING_AWAY, LARGEST, SUBPROTOCOL
from letta_matrix.doors.mcp.http import PATH, health, peer_of
from letta_matrix.doors.mcp.refusals import REFUSED, refusal_of
from letta_matrix.doors.mcp.services import Services
from letta_matrix.doors.mcp.streams import Streams
from letta_matrix.doors.web.server import AsgiServer

if TYPE_CHECKING:
    from letta_matrix.doors.mcp.websocket_session import Session

_MOST = 1000
"""Clients at once."""
PER_TOKEN = 300
"""Connections of a token at once."""


class McpSockets:
    """Listens for MCP clients. What a session needs is loaded when the first one has come."""

    def __init__(self, services: Services, core: Core, connections: Connections) -> None:
        self._services = services
        self._core = core
        self._guard = mcp_guard(services.config)
        self._health = health(services.health, self._guard)
        self._open: set[Session] = set()
        self._streams = Streams(services.authenticator, PER_TOKEN, "connections")
        trusted = services.config.api.trusted_proxies
        self._server = AsgiServer(
            self, connections, trusted_proxies=trusted, largest_message=LARGEST
        )

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._server.port

    @property
    def clients(self) -> int:
        """How many are connected."""
        return len(self._open)

    async def start(self, hostname: str, port: int) -> None:
        """Listen. Raises OSError when the port is taken."""
        await self._server.start(hostname, port)

    async def close(self) -> None:
        """Stop listening, and say goodbye (1001) to every client."""
        # First of all: whoever is told comes again at once.
        self._server.stop_listening()
        self._streams.close()
        farewells = [one.close(GOING_AWAY, "The bridge ends.") for one in self._open]
        await asyncio.gather(*farewells)
        await self._server.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/health" and scope["type"] == "http":
            await self._health(scope, receive, send)
            return
        try:
            refusal = await self._connect(scope, receive, send)
        except REFUSED as error:
            said = refusal_of(error)
            refusal = JSONResponse({"error": said.text}, said.status, said.headers)
        if refusal is not None:
            await refusal(scope, receive, send)

    async def _connect(self, scope: Scope, receive: Receive, send: Send) -> JSONResponse | None:
        """Serves a client until it has gone, or gives what refuses it."""
        if (refusal := self._refusal(scope)) is not None:
            return refusal
        socket = WebSocket(scope, receive, send)
        scope[TOOLSET] = toolset_in(socket.url.query)
        authorization, peer = socket.headers.get("authorization"), peer_of(scope)
        principal = await self._services.authenticator.admit(authorization, peer)
        bearer = bearer_of(authorization)
        server = await self._core.server()
        from letta_matrix.doors.mcp.websocket_session import Session

        session = Session(
            socket, bearer, principal.caller, peer, server, self._services, self._streams
        )
        with self._streams.opened(principal, bearer, peer, session.expel):
            await socket.accept(SUBPROTOCOL if scope["subprotocols"] else None)
            self._open.add(session)
            try:
                await session.run()
            finally:
                self._open.discard(session)
        return None

    def _refusal(self, scope: Scope) -> JSONResponse | None:
        """The answer to what is no handshake of a client that may connect at all."""
        if scope["path"] != PATH:
            return JSONResponse({"error": f"There is nothing here; MCP is at {PATH}."}, 404)
        self._guard.check_scope(scope)
        if scope["type"] != "websocket":
            text = f"This is a WebSocket: connect with the subprotocol `{SUBPROTOCOL}`."
            upgrade = {"Upgrade": "websocket", "Connection": "Upgrade"}
            return JSONResponse({"error": text}, 426, upgrade)
        if scope["subprotocols"] and SUBPROTOCOL not in scope["subprotocols"]:
            return JSONResponse({"error": f"Offer the subprotocol `{SUBPROTOCOL}`."}, 400)
        if len(self._open) >= _MOST:
            text = "Too many clients are connected."
            return JSONResponse({"error": text}, 503, {"Retry-After": "10"})
        return None
