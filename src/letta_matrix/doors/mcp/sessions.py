"""MCP's Streamable HTTP, of the stateless revision and of the ones with sessions."""

import asyncio
from typing import Any

from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from mcp.server.lowlevel import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS
from starlette.types import Receive, Scope, Send

from letta_matrix.access.principal import Principal
from letta_matrix.doors.mcp.caller import PRINCIPAL
from letta_matrix.doors.mcp.lasting_sessions import LastingSessions
from letta_matrix.doors.mcp.services import Services
from letta_matrix.doors.mcp.session_ids import SessionIds


class Sessions:
    """Runs the SDK's session managers. A session belongs to the principal that began it."""

    def __init__(self, server: Server[Any], services: Services, largest_body: int) -> None:
        config = services.config
        self._manager = LastingSessions(
            server,
            SessionIds(config.appservice.as_token.get_secret_value()),
            session_idle_timeout=config.mcp.idle_timeout,
            max_request_body_size=largest_body,
        )
        # Answers without a stream, and so without progress, which quick calls do not tell.
        self._quick = StreamableHTTPSessionManager(
            server, json_response=True, stateless=True, max_request_body_size=largest_body
        )
        tools = *services.toolbox.tools.values(), services.toolbox.others
        self._slow_tools = frozenset(tool.name for tool in tools if tool.seconds is None)
        self._started, self._stop = asyncio.Event(), asyncio.Event()
        # The managers' tasks must begin and end in one task, which no request's can be.
        self._running = asyncio.create_task(self._run())

    @property
    def count(self) -> int:
        """The sessions in memory."""
        return self._manager.count

    async def close(self) -> None:
        """End every session."""
        self._stop.set()
        await self._running

    async def serve(self, principal: Principal, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request of a principal."""
        await self._started.wait()
        owner = AccessToken(token="", client_id=principal.key, scopes=[])
        scope[PRINCIPAL] = principal
        scope["user"] = AuthenticatedUser(owner)
        manager = self._quick if self._is_quick(scope) else self._manager
        await manager.handle_request(scope, receive, send)

    async def _run(self) -> None:
        async with self._manager.run(), self._quick.run():
            self._started.set()
            await self._stop.wait()

    def _is_quick(self, scope: Scope) -> bool:
        headers = dict(scope["headers"])
        version = headers.get(b"mcp-protocol-version", b"").decode("latin-1")
        if not version or version in HANDSHAKE_PROTOCOL_VERSIONS:
            return False
        # The stateless revision has every request say so, and the SDK holds it against the body.
        if headers.get(b"mcp-method") != b"tools/call":
            return True
        return headers.get(b"mcp-name", b"").decode("latin-1") not in self._slow_tools
