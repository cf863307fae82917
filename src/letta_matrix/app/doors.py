"""The doors for browsers and programs: pages, REST API and MCP server, each on its port."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from starlette.middleware import Middleware
from starlette.types import ASGIApp

from letta_matrix.access.authenticator import Authenticator
from letta_matrix.access.guard import Guarded, api_guard
from letta_matrix.access.login_sessions import LoginSessions
from letta_matrix.app.assembly import App
from letta_matrix.app.metric import Metric
from letta_matrix.common.connections.admission import Connections
from letta_matrix.common.connections.descriptors import most_connections
from letta_matrix.common.connections.listening import listen
from letta_matrix.common.once import Once
from letta_matrix.config import Config
from letta_matrix.doors.chat.registry import all_commands, listed
from letta_matrix.doors.mcp.core import Core
from letta_matrix.doors.mcp.http import McpHttp
from letta_matrix.doors.mcp.kept_subscriptions import KeptSubscriptions
from letta_matrix.doors.mcp.services import Services as McpServices
from letta_matrix.doors.mcp.websocket import McpSockets
from letta_matrix.doors.web.front import Front
from letta_matrix.doors.web.health import answer, health_routes
from letta_matrix.doors.web.in_flight import InFlight
from letta_matrix.doors.web.lazy import Lazy
from letta_matrix.doors.web.metrics import Shown, metrics_route
from letta_matrix.doors.web.pages import chat_routes, dashboard_routes, docs_routes
from letta_matrix.doors.web.server import AsgiServer
from letta_matrix.store.meta import Meta

if TYPE_CHECKING:
    from letta_matrix.doors.rest.services import Services as ApiServices


class Doors:
    """Listens for browsers and programs. Their libraries are loaded when somebody comes.
    `connections` are those of all its ports."""

    def __init__(
        self,
        config: Config,
        app: App,
        health: Callable[[], Mapping[str, object]],
        is_ready: Callable[[], Awaitable[bool]],
        metrics: Sequence[Metric] = (),
    ) -> None:
        self._config = config
        self._app = app
        self._bridge_health = health
        self._counts: dict[str, Callable[[], int]] = {}
        self._is_ready = is_ready
        self._metrics = metrics
        self._logins = LoginSessions(config, app.event_bus)
        self._authenticator = Authenticator(
            config, app.stores.tokens, app.stores.directory, self._logins
        )
        self.connections = Connections(most_connections())
        self._in_flight = InFlight()
        self._stopping = asyncio.Event()
        self._opened = contextlib.AsyncExitStack()

    async def open(self) -> None:
        """Listen. Raises PortTakenError, StoreUnavailable."""
        api = self._config.api
        # Their sessions were another process's: they count for nothing, and are not to seem to.
        await self._app.stores.tokens.end_logins(time.time())
        self._opened.push_async_callback(self._logins.close)
        rest = AsgiServer(self.rest(), self.connections, trusted_proxies=api.trusted_proxies)
        self._opened.push_async_callback(rest.close)
        await listen(rest.start, api.hostname, api.port)
        if self._config.mcp.enabled:
            await self._open_mcp()

    async def _open_mcp(self) -> None:
        services, mcp = self._mcp_services(), self._config.mcp
        core = Core(services)
        door = McpHttp(services, core)
        trusted = self._config.api.trusted_proxies
        server = AsgiServer(door, self.connections, trusted_proxies=trusted)
        self._opened.push_async_callback(server.close)
        self._opened.push_async_callback(door.close)
        self._counts["mcp_sessions"] = lambda: door.sessions
        await listen(server.start, mcp.hostname, mcp.port)
        sockets = McpSockets(services, core, self.connections)
        self._opened.push_async_callback(sockets.close)
        self._counts["mcp_clients"] = lambda: sockets.clients
        await listen(sockets.start, mcp.hostname, mcp.websocket_port)

    def _health(self) -> Mapping[str, object]:
        counts = {name: count() for name, count in self._counts.items()}
        return {**self._bridge_health(), **counts}

    async def close(self) -> None:
        self._stopping.set()
        await self._opened.aclose()

    def rest(self) -> ASGIApp:
        """What port 8004 serves: pages and probes, and behind them the REST API."""
        config = self._config
        browser_url = config.api.homeserver_url or config.homeserver.url
        guard = api_guard(config)
        chat = chat_routes(browser_url, config.bot_user_id, listed(all_commands()))
        pages = [*chat, *dashboard_routes(), *docs_routes()]
        guarded = Front(pages, Lazy(self._make_api), [Middleware(Guarded, guard=guard)])
        probes = health_routes(
            self._health, self._is_ready, lambda request: guard.knows(request.scope)
        )
        if self._metrics:
            # Whatever it is called there: who has a token is no page of strangers.
            shown = Once(self._make_exposition)
            probes.append(metrics_route(self._authenticator.admit, shown))
        return Front(probes, guarded)

    def _make_exposition(self) -> Shown:
        from letta_matrix.app.exposition import Exposition

        return Exposition(self._metrics)

    def _make_api(self) -> ASGIApp:
        from letta_matrix.doors.rest.app import make_app

        return make_app(self._api_services())

    def _api_services(self) -> "ApiServices":
        from letta_matrix.doors.rest.services import Services
        from letta_matrix.operations.login_tokens import LoginTokens

        app, stores = self._app, self._app.stores
        return Services(
            config=self._config,
            homeserver=app.homeserver,
            toolbox=app.toolbox,
            authenticator=self._authenticator,
            in_flight=self._in_flight,
            logins=self._logins,
            directory=stores.directory,
            login_tokens=LoginTokens(
                stores.tokens, app.toolbox.ledger, self._logins, self._config.bot_user_id
            ),
            turns=stores.turns,
            outbox=stores.outbox,
            approval_store=stores.approvals,
            unfinished=app.dispatcher.queues.unfinished,
            health=self._health,
            stopping=self._stopping,
        )

    def _mcp_services(self) -> McpServices:
        return McpServices(
            config=self._config,
            toolbox=self._app.toolbox,
            authenticator=self._authenticator,
            directory=self._app.stores.directory,
            in_flight=self._in_flight,
            subscriptions=KeptSubscriptions(Meta(self._app.stores.database)),
            health=lambda known: answer(self._health(), known=known),
        )
