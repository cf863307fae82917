"""The HTTP port of the MCP server: `/mcp` for holders of tokens, `/health` for probes."""

import asyncio
import contextlib
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import structlog
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from letta_matrix.access.authenticator import (
    IdentityUnavailable,
    TooOften,
    Unauthorized,
    bearer_of,
)
from letta_matrix.access.guard import Guarded, mcp_guard
from letta_matrix.access.metadata import (
    WELL_KNOWN,
    challenge,
    metadata_url,
    resource_metadata,
    resource_url,
)
from letta_matrix.doors.mcp.caller import TOOLSET, NoToolset, toolset_in
from letta_matrix.doors.mcp.core import Core
from letta_matrix.doors.mcp.services import Services
from letta_matrix.doors.mcp.streams import Stream, Streams
from letta_matrix.doors.web.in_flight import TooMuchInFlight
from letta_matrix.store.database import StoreUnavailable

if TYPE_CHECKING:
    from letta_matrix.doors.mcp.sessions import Sessions

log = structlog.get_logger()

PATH = "/mcp"
_METHODS = ("POST", "GET", "DELETE")
_INVALID_REQUEST, _INTERNAL_ERROR = -32600, -32603


class McpHttp:
    """MCP's Streamable HTTP as an ASGI application. Each request brings its token, within a
    session too."""

    def __init__(self, services: Services, core: Core) -> None:
        self._config = services.config
        self._authenticator = services.authenticator
        self._in_flight = services.in_flight
        self._core = core
        tools = *services.toolbox.tools.values(), services.toolbox.others
        self._slow_tools = frozenset(tool.name for tool in tools if tool.seconds is None)
        self._streams = Streams(services.authenticator)
        self._sessions: Sessions | None = None
        self._beginning = asyncio.Lock()
        self._opened = contextlib.AsyncExitStack()
        self._closing = False
        guard = self._guard = mcp_guard(services.config)
        self._report = services.health
        self._routes: dict[str, ASGIApp] = {
            "/health": self._health,
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
        await self._opened.aclose()

    async def _health(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] not in ("GET", "HEAD"):
            await _refusal(405, "Only GET.", {"Allow": "GET, HEAD"})(scope, receive, send)
            return
        known = self._guard.knows(scope)
        await JSONResponse(self._report(known))(scope, receive, send)

    async def _metadata(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] not in ("GET", "HEAD"):
            await _refusal(405, "Only GET.", {"Allow": "GET, HEAD"})(scope, receive, send)
            return
        document = resource_metadata(self._config, self._resource(scope))
        await JSONResponse(document)(scope, receive, send)

    async def _mcp(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] not in _METHODS:
            refusal = _refusal(405, "Only POST, GET and DELETE.", {"Allow": ", ".join(_METHODS)})
            await refusal(scope, receive, send)
            return
        if self._closing:
            await _refusal(503, "The bridge closes.")(scope, receive, send)
            return
        try:
            scope[TOOLSET] = toolset_in(scope["query_string"].decode("latin-1"))
            await self._serve(scope, receive, send)
        except NoToolset as error:
            await _refusal(400, str(error))(scope, receive, send)
        except IdentityUnavailable as error:
            wait = {"Retry-After": str(math.ceil(error.retry_after))}
            await _refusal(503, str(error), wait)(scope, receive, send)
        except Unauthorized as error:
            said = challenge(error, metadata_url(self._resource(scope)))
            await _refusal(401, str(error), {"WWW-Authenticate": said})(scope, receive, send)
        except TooOften as error:
            wait = {"Retry-After": str(math.ceil(error.retry_after))}
            await _refusal(429, str(error), wait)(scope, receive, send)
        except TooMuchInFlight as error:
            wait = {"Retry-After": str(math.ceil(error.retry_after))}
            await _refusal(503, str(error), wait)(scope, receive, send)
        except StoreUnavailable:
            text = "The bridge's database does not answer now."
            await _refusal(503, text, {"Retry-After": "10"})(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        authorization, client = _header(scope, b"authorization"), scope.get("client")
        peer = str(client[0]) if client else ""
        principal = await self._authenticator.admit(authorization, peer)
        sessions = self._sessions or await self._begin()
        with self._streams.opened(principal, bearer_of(authorization)) as stream:
            answer = _Answer(stream, send, self._streams)
            most, caller = sessions.largest_body, principal.caller
            async with self._in_flight.body(caller, scope, receive, most) as body:
                await sessions.serve(principal, scope, body, answer)
            return
        await answer.end(scope, receive)

    async def _begin(self) -> "Sessions":
        server = await self._core.server()
        async with self._beginning:
            if self._sessions is None:
                # The SDK is loaded by now: this takes no time.
                from letta_matrix.doors.mcp.session_ids import SessionIds
                from letta_matrix.doors.mcp.sessions import Sessions

                ids = SessionIds(self._config.appservice.as_token.get_secret_value())
                idle_timeout = self._config.mcp.idle_timeout
                sessions = Sessions(server, ids, idle_timeout, self._slow_tools)
                await sessions.start()
                self._opened.push_async_callback(sessions.close)
                watching = asyncio.create_task(self._streams.watch())
                self._opened.callback(watching.cancel)
                self._sessions = sessions
        return self._sessions

    def _resource(self, scope: Scope) -> str:
        return resource_url(self._config.mcp.public_url, _header(scope, b"host"), PATH)


class _Answer:
    """A response on its way, which may have to end early."""

    def __init__(self, stream: Stream, send: Send, streams: Streams) -> None:
        self._stream = stream
        self._send = send
        self._streams = streams
        self._complete = False

    async def __call__(self, message: Any) -> None:
        """Send a part of it; nothing where the token was revoked before the first."""
        begins = message["type"] == "http.response.start"
        if begins and not await self._streams.is_accepted(self._stream.bearer):
            self._stream.scope.cancel()
        if self._stream.scope.cancel_called:
            return
        self._stream.answering = True
        self._complete = message["type"] == "http.response.body" and not message.get("more_body")
        await self._send(message)

    async def end(self, scope: Scope, receive: Receive) -> None:
        """Finish what was interrupted."""
        if not self._stream.answering:
            text = "The token was revoked meanwhile."
            await _refusal(401, text)(scope, receive, self._send)
        elif not self._complete:
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})


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


def _header(scope: Scope, name: bytes) -> str:
    found = (value for key, value in scope["headers"] if key == name)
    return next(found, b"").decode("latin-1")
