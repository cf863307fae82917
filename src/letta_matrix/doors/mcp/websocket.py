"""The WebSocket door of the MCP server, a transport of our own.

JSON-RPC 2.0, one message in each text frame, subprotocol `mcp` (RFC 6455). docs/how-to/mcp.md
specifies it for clients.
"""

import asyncio

import structlog
from aiohttp import web

from letta_matrix.access.authenticator import IdentityUnavailable, TooOften, Unauthorized, bearer_of
from letta_matrix.access.guard import Refused, mcp_guard
from letta_matrix.access.metadata import challenge
from letta_matrix.access.principal import Principal
from letta_matrix.access.proxies import client_of
from letta_matrix.access.streams import OpenStreams
from letta_matrix.common.connections.admission import Connections
from letta_matrix.common.connections.aiohttp_server import AiohttpServer
from letta_matrix.doors.mcp.caller import NoToolset, toolset_in
from letta_matrix.doors.mcp.core import Core
from letta_matrix.doors.mcp.frames import GOING_AWAY, LARGEST, SUBPROTOCOL
from letta_matrix.doors.mcp.services import Services
from letta_matrix.store.database import StoreUnavailable

log = structlog.get_logger()

_HEARTBEAT = 30.0
"""Seconds between pings; a client that does not answer one within half of that is gone."""
_MOST = 1000
"""Clients at once."""
PER_TOKEN = 300
"""Connections of a token at once."""
_IDLE = 75.0
"""Seconds that a connection may be idle behind a request that was no handshake."""
_FAREWELL = 1.0
"""Seconds a client has to answer our close frame."""


class McpSockets:
    """Listens for MCP clients. What a session needs is loaded when the first one has come."""

    def __init__(self, services: Services, core: Core, connections: Connections) -> None:
        self._authenticator = services.authenticator
        self._guard = mcp_guard(services.config)
        self._proxies = services.config.api.trusted_proxies
        self._report = services.health
        self._core = core
        self._in_flight = services.in_flight
        self._open: set[web.WebSocketResponse] = set()
        self._counted = OpenStreams(PER_TOKEN, "connections")
        self._server = AiohttpServer(self._app(), connections, keepalive=_IDLE, farewell=_FAREWELL)

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
        farewells = [
            socket.close(code=GOING_AWAY, message=b"The bridge ends.") for socket in self._open
        ]
        await asyncio.gather(*farewells, return_exceptions=True)
        await self._server.close()

    def _app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/mcp", self._connect, allow_head=False)
        app.router.add_get("/health", self._health)
        return app

    async def _health(self, request: web.Request) -> web.Response:
        headers = request.headers
        known = self._guard.passes(",".join(headers.getall("Host", [])), headers.get("Origin"))
        return web.json_response(self._report(known))

    async def _connect(self, request: web.Request) -> web.StreamResponse:
        refusal = self._refusal(request)
        if refusal is not None:
            return refusal
        principal = await self._admitted(request)
        if isinstance(principal, web.Response):
            return principal
        try:
            with self._counted.opened(principal):
                await self._core.server()
                return await self._serve(request, principal.caller)
        except TooOften as error:
            return _too_often(error)

    def _refusal(self, request: web.Request) -> web.Response | None:
        """The answer to what is no handshake of a client that may connect at all."""
        try:
            self._guard.check(request.headers.get("Host"), request.headers.get("Origin"))
        except Refused as error:
            return _refused(error.status, str(error))
        if not web.WebSocketResponse(protocols=(SUBPROTOCOL,)).can_prepare(request):
            text = f"This is a WebSocket: connect with the subprotocol `{SUBPROTOCOL}`."
            return _refused(426, text, Upgrade="websocket", Connection="Upgrade")
        offered = request.headers.get("Sec-WebSocket-Protocol")
        if offered is not None and SUBPROTOCOL not in map(str.strip, offered.split(",")):
            return _refused(400, f"Offer the subprotocol `{SUBPROTOCOL}`.")
        try:
            toolset_in(request.query_string)
        except NoToolset as error:
            return _refused(400, str(error))
        if len(self._open) >= _MOST:
            return _refused(503, "Too many clients are connected.", **{"Retry-After": "10"})
        return None

    async def _admitted(self, request: web.Request) -> Principal | web.Response:
        """Whose client may connect, else the answer that refuses it."""
        authorization = request.headers.get("Authorization")
        try:
            return await self._authenticator.admit(authorization, self._peer(request))
        except (IdentityUnavailable, StoreUnavailable):
            text = "Tokens cannot be checked now. Try again in a moment."
            return _refused(503, text, **{"Retry-After": "10"})
        except Unauthorized as error:
            return _refused(401, str(error), **{"WWW-Authenticate": challenge(error)})
        except TooOften as error:
            return _too_often(error)

    def _peer(self, request: web.Request) -> str:
        """The address a client comes from."""
        forwarded = request.headers.getall("X-Forwarded-For", [])
        return client_of(request.remote or "", forwarded, self._proxies)

    async def _serve(self, request: web.Request, caller: str) -> web.WebSocketResponse:
        from letta_matrix.doors.mcp.websocket_session import Session

        socket = web.WebSocketResponse(
            protocols=(SUBPROTOCOL,),
            heartbeat=_HEARTBEAT,
            max_msg_size=LARGEST,
            timeout=_FAREWELL,
            compress=False,  # compressed frames would let a few bytes become many here
        )
        await socket.prepare(request)
        transport = request.transport
        bearer = bearer_of(request.headers.get("Authorization"))
        abort = transport.abort if transport is not None else request.protocol.force_close
        self._open.add(socket)
        try:
            await Session(
                socket,
                bearer,
                caller,
                self._authenticator,
                self._core,
                self._peer(request),
                toolset_in(request.query_string),
                abort,
                self._in_flight,
            ).run()
        finally:
            self._open.discard(socket)
        return socket


def _too_often(error: TooOften) -> web.Response:
    return _refused(429, str(error), **{"Retry-After": str(int(error.retry_after) + 1)})


def _refused(status: int, text: str, **headers: str) -> web.Response:
    response = web.json_response({"error": text}, status=status, headers=headers)
    response.force_close()
    return response
