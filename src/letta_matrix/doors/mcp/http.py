"""The HTTP port of the MCP server: `/mcp` for holders of tokens, `/health` for probes."""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from letta_matrix.access import metadata
from letta_matrix.access.authenticator import bearer_of
from letta_matrix.access.guard import Guarded, mcp_guard
from letta_matrix.common import clock
from letta_matrix.doors.mcp.caller import TOOLSET, toolset_in
from letta_matrix.doors.mcp.core import Core
from letta_matrix.doors.mcp.refusals import REFUSED, Refusal, refusal_of
from letta_matrix.doors.mcp.services import Services
from letta_matrix.doors.mcp.streams import Streams

if TYPE_CHECKING:
    from letta_matrix.doors.mcp.sessions import Sessions

PATH = "/mcp"
LARGEST_BODY = 10 * 1024 * 1024
"""Bytes of a request: files of the largest size, in base64, fit."""
MOST = 600
"""Requests of a token that are open at once: a stream for each of its sessions, and calls."""
_AT_ONCE = 0.05
"""Seconds for which a token that was looked at holds: to look costs an eighth of a short call."""
_METHODS = ("POST", "GET", "DELETE")
_INVALID_REQUEST, _INTERNAL_ERROR = -32600, -32603


class McpHttp:
    """MCP's Streamable HTTP as an ASGI application. Each request brings its token, within a
    session too."""

    def __init__(self, services: Services, core: Core) -> None:
        self._services, self._config = services, services.config
        self._core = core
        self._streams = Streams(services.authenticator, MOST, "requests")
        self._sessions: Sessions | None = None
        self._closing = False
        guard = self._guard = mcp_guard(services.config)
        self._routes: dict[str, ASGIApp] = {
            "/health": self._health,
            PATH: Guarded(_for_pages(self._mcp, services.config.mcp.allowed_origins), guard),
            metadata.WELL_KNOWN: Guarded(self._metadata, guard),
            metadata.WELL_KNOWN + PATH: Guarded(self._metadata, guard),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = self._routes.get(scope["path"].rstrip("/"), nothing_here)
        try:
            await answer(scope, receive, send)
        except REFUSED as error:
            said = refusal_of(error, metadata.metadata_url(self._resource(scope)))
            code = _INVALID_REQUEST if said.status < 500 else _INTERNAL_ERROR
            # No answer to a certain request.
            refusal = {"jsonrpc": "2.0", "id": None, "error": {"code": code, "message": str(said)}}
            await JSONResponse(refusal, said.status, said.headers)(scope, receive, send)

    @property
    def sessions(self) -> int:
        """How many there are."""
        return 0 if self._sessions is None else self._sessions.count

    async def close(self) -> None:
        """End every stream and session; what is being called has a moment to end."""
        self._closing = True
        await self._streams.close()
        if self._sessions is not None:
            await self._sessions.close()

    async def _health(self, scope: Scope, receive: Receive, send: Send) -> None:
        report = self._services.health(self._guard.knows(scope))
        await to_read(scope, report)(scope, receive, send)

    async def _metadata(self, scope: Scope, receive: Receive, send: Send) -> None:
        document = metadata.resource_metadata(self._config, self._resource(scope))
        await to_read(scope, document)(scope, receive, send)

    async def _mcp(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] not in _METHODS:
            raise Refusal(405, "Only POST, GET and DELETE.", {"Allow": ", ".join(_METHODS)})
        if self._closing:
            raise Refusal(503, "The bridge closes.")
        scope[TOOLSET] = toolset_in(scope["query_string"].decode("latin-1"))
        authorization, peer = Headers(scope=scope).get("authorization"), peer_of(scope)
        # Its answer may wait for the SDK, and for the body, too.
        looked_at = clock.now()
        principal = await self._services.authenticator.admit(authorization, peer)
        sessions = self._sessions or await self._begin()
        bearer, caller = bearer_of(authorization), principal.caller
        answer = _Answer(send, partial(self._streams.refusal, bearer, peer), looked_at)
        body = self._services.in_flight.body(caller, scope, receive, LARGEST_BODY)
        with self._streams.opened(principal, bearer, peer, answer.interrupt), answer.scope:
            async with body as received:
                await sessions.serve(principal, scope, received, answer)
        # Interrupted at its last words it has come to its end all the same.
        if answer.scope.cancel_called:
            await answer.finish()

    async def _begin(self) -> "Sessions":
        server = await self._core.get()
        if self._sessions is None:
            # The SDK is loaded by now: this takes no time.
            from letta_matrix.doors.mcp.sessions import Sessions

            self._sessions = Sessions(server, self._services, LARGEST_BODY)
        return self._sessions

    def _resource(self, scope: Scope) -> str:
        host = Headers(scope=scope).get("host", "")
        return metadata.resource_url(self._config.mcp.public_url, host, PATH)


class _Answer:
    """A response on its way, which ends early when its `scope` is cancelled; `refusal` tells why
    its token, which was `looked_at` then (`clock.now`), is accepted no more."""

    def __init__(self, send: Send, refusal: Callable[[], Awaitable[str]], looked_at: float) -> None:
        self.scope = anyio.CancelScope()
        self._send = send
        self._refusal = refusal
        self._looked_at = looked_at
        self._began = self._complete = False

    async def __call__(self, message: Any) -> None:
        """Send a part of it; nothing where the token was revoked before the first."""
        is_late = clock.now() - self._looked_at > _AT_ONCE
        if is_late and message["type"] == "http.response.start" and (why := await self._refusal()):
            await self.interrupt(why)
        if self.scope.cancel_called:
            return
        self._began = True
        self._complete = message["type"] == "http.response.body" and not message.get("more_body")
        await self._send(message)

    async def interrupt(self, why: str) -> None:
        """End it. As the bridge ends, calls that have said nothing yet may end by themselves."""
        if why or self._began:
            self.scope.cancel()

    async def finish(self) -> None:
        """Say the rest of what was interrupted. Raises Refusal where nothing was said."""
        if not self._began:
            raise Refusal(401, "The token was revoked meanwhile.")
        if not self._complete:
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})


def peer_of(scope: Scope) -> str:
    """The address a request comes from, "" where that is not known."""
    client = scope.get("client")
    return str(client[0]) if client else ""


def to_read(scope: Scope, document: Mapping[str, object]) -> JSONResponse:
    """A document of either port. Raises Refusal."""
    # A handshake of a WebSocket is a GET.
    if scope.get("method", "GET") not in ("GET", "HEAD"):
        raise Refusal(405, "Only GET.", {"Allow": "GET, HEAD"})
    return JSONResponse(document)


async def nothing_here(*_: object) -> None:
    """The application for other paths. Raises Refusal."""
    raise Refusal(404, f"There is nothing here; MCP is at {PATH}.")


def _for_pages(app: ASGIApp, origins: list[str]) -> ASGIApp:
    """With CORS for the web pages of the configuration, if there are any."""
    if not origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=list(_METHODS),
        allow_headers=["*"],
        expose_headers=["Mcp-Session-Id", "WWW-Authenticate", "Retry-After"],
    )
