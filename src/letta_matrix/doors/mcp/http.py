"""The HTTP port of the MCP server: `/mcp` for holders of tokens, `/health` for probes."""

import contextlib
from collections.abc import Generator, Mapping
from typing import TYPE_CHECKING, Any

import anyio
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from letta_matrix.access.authenticator import bearer_of
from letta_matrix.access.guard import Guard, Guarded, mcp_guard
from letta_matrix.access.metadata import (
    WELL_KNOWN,
    metadata_url,
    resource_metadata,
    resource_url,
)
from letta_matrix.doors.mcp.caller import TOOLSET, toolset_in
from letta_matrix.doors.mcp.core import Core
from letta_matrix.doors.mcp.refusals import REFUSED, refusal_of
from letta_matrix.doors.mcp.services import Health, Services
from letta_matrix.doors.mcp.streams import Streams

if TYPE_CHECKING:
    from letta_matrix.doors.mcp.sessions import Sessions

PATH = "/mcp"
LARGEST_BODY = 10 * 1024 * 1024
"""Bytes of a request: files of the largest size, in base64, fit."""
MOST = 600
"""Requests of a token that are open at once: a stream for each of its sessions, and calls."""
_METHODS = ("POST", "GET", "DELETE")
_INVALID_REQUEST, _INTERNAL_ERROR = -32600, -32603


class McpHttp:
    """MCP's Streamable HTTP as an ASGI application. Each request brings its token, within a
    session too."""

    def __init__(self, services: Services, core: Core) -> None:
        self._services, self._config = services, services.config
        self._core = core
        self._streams = Streams(services.authenticator, MOST, "requests")
        self._answers: set[_Answer] = set()
        self._sessions: Sessions | None = None
        self._closing = False
        guard = mcp_guard(services.config)
        self._routes: dict[str, ASGIApp] = {
            "/health": health(services.health, guard),
            PATH: Guarded(_for_pages(self._mcp, services.config.mcp.allowed_origins), guard),
            WELL_KNOWN: Guarded(self._metadata, guard),
            WELL_KNOWN + PATH: Guarded(self._metadata, guard),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = self._routes.get(scope["path"].rstrip("/"))
        if answer is None:
            there = {"error": f"There is nothing here; MCP is at {PATH}."}
            await JSONResponse(there, 404)(scope, receive, send)
        else:
            await answer(scope, receive, send)

    @property
    def sessions(self) -> int:
        """How many there are."""
        return 0 if self._sessions is None else self._sessions.count

    async def close(self) -> None:
        """End every stream and session; what is being called has a moment to end."""
        self._closing = True
        self._streams.close()
        # Calls that have said nothing yet may end by themselves.
        for answer in [one for one in self._answers if one.began]:
            answer.scope.cancel()
        if self._sessions is not None:
            await self._sessions.close()

    async def _metadata(self, scope: Scope, receive: Receive, send: Send) -> None:
        document = resource_metadata(self._config, self._resource(scope))
        await _to_read(scope, document)(scope, receive, send)

    async def _mcp(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            refusal = await self._serve(scope, receive, send)
        except REFUSED as error:
            said = refusal_of(error, metadata_url(self._resource(scope)))
            refusal = _refusal(said.status, said.text, said.headers)
        if refusal is not None:
            await refusal(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> JSONResponse | None:
        """Answers a request, or gives what refuses it."""
        if scope["method"] not in _METHODS:
            allowed = {"Allow": ", ".join(_METHODS)}
            return _refusal(405, "Only POST, GET and DELETE.", allowed)
        if self._closing:
            return _refusal(503, "The bridge closes.")
        scope[TOOLSET] = toolset_in(scope["query_string"].decode("latin-1"))
        authorization = Headers(scope=scope).get("authorization")
        peer = peer_of(scope)
        principal = await self._services.authenticator.admit(authorization, peer)
        sessions = self._sessions or await self._begin()
        answer = _Answer(send, self._streams, bearer_of(authorization), peer)
        with (
            self._streams.opened(principal, answer.bearer, peer, answer.revoke),
            answer.among(self._answers),
        ):
            in_flight, caller = self._services.in_flight, principal.caller
            async with in_flight.body(caller, scope, receive, LARGEST_BODY) as body:
                await sessions.serve(principal, scope, body, answer)
            return None
        return await answer.end()

    async def _begin(self) -> "Sessions":
        server = await self._core.server()
        if self._sessions is None:
            # The SDK is loaded by now: this takes no time.
            from letta_matrix.doors.mcp.sessions import Sessions

            self._sessions = Sessions(server, self._services, LARGEST_BODY)
        return self._sessions

    def _resource(self, scope: Scope) -> str:
        host = Headers(scope=scope).get("host", "")
        return resource_url(self._config.mcp.public_url, host, PATH)


class _Answer:
    """A response on its way, which may have to end early: `scope` ends it, `began` tells whether
    some of it was sent."""

    def __init__(self, send: Send, streams: Streams, bearer: str, peer: str) -> None:
        self.bearer = bearer
        self.scope = anyio.CancelScope()
        self.began = False
        self._send = send
        self._streams = streams
        self._peer = peer
        self._complete = False

    async def __call__(self, message: Any) -> None:
        """Send a part of it; nothing where the token was revoked before the first."""
        begins = message["type"] == "http.response.start"
        if begins and (why := await self._streams.refusal(self.bearer, self._peer)):
            self.revoke(why)
        if self.scope.cancel_called:
            return
        self.began = True
        self._complete = message["type"] == "http.response.body" and not message.get("more_body")
        await self._send(message)

    def revoke(self, _why: str) -> None:
        """Its token is accepted no more."""
        self.scope.cancel()

    @contextlib.contextmanager
    def among(self, answers: "set[_Answer]") -> Generator[None]:
        """While it is on its way. What is inside ends silently when it may not go on."""
        answers.add(self)
        try:
            with self.scope:
                yield
        finally:
            answers.discard(self)

    async def end(self) -> JSONResponse | None:
        """Finish what was interrupted."""
        if not self.began:
            return _refusal(401, "The token was revoked meanwhile.")
        if not self._complete:
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})
        return None


def health(report: Health, guard: Guard) -> ASGIApp:
    """`/health` of both ports."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        await _to_read(scope, report(guard.knows(scope)))(scope, receive, send)

    return answer


def peer_of(scope: Scope) -> str:
    """The address a request comes from, "" where that is not known."""
    client = scope.get("client")
    return str(client[0]) if client else ""


def _to_read(scope: Scope, document: Mapping[str, object]) -> JSONResponse:
    if scope["method"] in ("GET", "HEAD"):
        return JSONResponse(document)
    return _refusal(405, "Only GET.", {"Allow": "GET, HEAD"})


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


def _refusal(status: int, text: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """A JSON-RPC error that is no answer to a certain request."""
    code = _INVALID_REQUEST if status < 500 else _INTERNAL_ERROR
    error = {"jsonrpc": "2.0", "id": None, "error": {"code": code, "message": text}}
    return JSONResponse(error, status, headers)
