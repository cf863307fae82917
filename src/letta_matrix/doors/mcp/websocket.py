"""The WebSocket door of the MCP server, a transport of our own.

JSON-RPC 2.0, one message in each text frame, subprotocol `mcp` (RFC 6455). docs/how-to/mcp.md
specifies it for clients.
"""

from functools import partial

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from letta_matrix.access.authenticator import bearer_of
from letta_matrix.access.guard import mcp_guard
from letta_matrix.common.connections.admission import Connections
from letta_matrix.common.mcp_frames import LARGEST, SUBPROTOCOL
from letta_matrix.doors.mcp.caller import TOOLSET, toolset_in
from letta_matrix.doors.mcp.core import Core
from letta_matrix.doors.mcp.http import PATH, nothing_here, peer_of, to_read
from letta_matrix.doors.mcp.refusals import REFUSED, Refusal, refusal_of
from letta_matrix.doors.mcp.services import Services
from letta_matrix.doors.mcp.streams import Streams
from letta_matrix.doors.web.server import AsgiServer

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
        return len(self._streams)

    async def start(self, hostname: str, port: int) -> None:
        """Listen. Raises OSError when the port is taken."""
        await self._server.start(hostname, port)

    async def close(self) -> None:
        """Stop listening, and say goodbye (1001) to every client."""
        # First of all: whoever is told comes again at once.
        self._server.stop_listening()
        await self._streams.close()
        await self._server.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = {PATH: self._connect, "/health": self._health}.get(scope["path"], nothing_here)
        try:
            await answer(scope, receive, send)
        except REFUSED as error:
            said = refusal_of(error)
            refusal = JSONResponse({"error": str(said)}, said.status, said.headers)
            await refusal(scope, receive, send)

    async def _health(self, scope: Scope, receive: Receive, send: Send) -> None:
        report = self._services.health(self._guard.knows(scope))
        await to_read(scope, report)(scope, receive, send)

    async def _connect(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves a client until it has gone. Raises what is in `REFUSED`."""
        self._check(scope)
        scope[TOOLSET] = toolset_in(scope["query_string"].decode("latin-1"))
        authorization, peer = Headers(scope=scope).get("authorization"), peer_of(scope)
        principal = await self._services.authenticator.admit(authorization, peer)
        server = await self._core.get()
        from letta_matrix.doors.mcp.websocket_session import Session

        socket, bearer = WebSocket(scope, receive, send), bearer_of(authorization)
        refusal = partial(self._streams.refusal, bearer, peer)
        session = Session(socket, bearer, principal.caller, peer, server, self._services, refusal)
        with self._streams.opened(principal, bearer, peer, session.end):
            await socket.accept(SUBPROTOCOL if scope["subprotocols"] else None)
            await session.run()

    def _check(self, scope: Scope) -> None:
        """Raises Refusal for what is no handshake of a client that may connect at all."""
        self._guard.check_scope(scope)
        if scope["type"] != "websocket":
            text = f"This is a WebSocket: connect with the subprotocol `{SUBPROTOCOL}`."
            raise Refusal(426, text, {"Upgrade": "websocket", "Connection": "Upgrade"})
        if scope["subprotocols"] and SUBPROTOCOL not in scope["subprotocols"]:
            raise Refusal(400, f"Offer the subprotocol `{SUBPROTOCOL}`.")
        if len(self._streams) >= _MOST:
            raise Refusal(503, "Too many clients are connected.", retry_after=10.0)
