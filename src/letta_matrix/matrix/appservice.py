"""The application service's side of the homeserver: what Synapse calls.

Matrix application service API v1.18: transactions, user and alias queries, ping,
third-party stubs. It knows no database: `admit` stores, and only then is a 200 given.
"""

import asyncio
import hmac
import json
import math
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import structlog
from aiohttp import web

from letta_matrix.common import clock
from letta_matrix.common.connections.admission import Connections
from letta_matrix.common.connections.aiohttp_server import AiohttpServer
from letta_matrix.common.connections.descriptors import kept_connections
from letta_matrix.common.json_fields import items, mapping

log = structlog.get_logger()

_MAX_BODY = 64 * 1024 * 1024
_BODY_SECONDS = 60.0
_IDLE_SECONDS = 300.0
"""Longer than Synapse keeps a connection: one that we close just then delays what it sends."""
_WARNING_INTERVAL = 60.0

Events = list[dict[str, Any]]


class AppserviceHandler(Protocol):
    """What the rest of letta-matrix does with what the homeserver asks."""

    async def admit(self, txn_id: str, events: Events) -> None:
        """Store a transaction; anything raised makes the homeserver send it again."""
        ...

    async def has_user(self, user_id: str) -> bool:
        """Whether a user of our namespace exists; it must be registered when this returns True."""
        ...

    def is_ready(self) -> bool: ...


class Appservice:
    """An aiohttp server for the homeserver. `counters` counts transactions and oddities;
    `connections` are its own, so that no other port takes the homeserver's place; `heard_at` is
    when the homeserver reached us last (`clock.now`), `pushed_at` when with a transaction, and
    `stored_at` and `refused_at` when with one that was admitted, or had to come again. An
    `earlier` hs_token is accepted, too."""

    def __init__(self, hs_token: str, handler: AppserviceHandler, earlier: str = "") -> None:
        self._hs_tokens = [token.encode() for token in (hs_token, earlier) if token]
        self._handler = handler
        self.counters: Counter[str] = Counter()
        self.connections = Connections(kept_connections())
        self._server: AiohttpServer | None = None
        self._expected: tuple[bytes, asyncio.Event] | None = None
        self._warned_at = -math.inf
        self.heard_at = self.pushed_at = -math.inf
        self.stored_at = self.refused_at = -math.inf

    def application(self) -> web.Application:
        app = web.Application(client_max_size=_MAX_BODY, middlewares=[self._authenticate])
        for prefix in ("/_matrix/app/v1", ""):
            app.router.add_put(prefix + "/transactions/{txn_id}", self._transaction)
            app.router.add_get(prefix + "/users/{user_id}", self._user)
            app.router.add_get(prefix + "/rooms/{alias}", self._alias)
        app.router.add_post("/_matrix/app/v1/ping", self._ping)
        app.router.add_get("/_matrix/app/v1/thirdparty/{kind}", self._thirdparty)
        app.router.add_get("/_matrix/app/v1/thirdparty/{kind}/{protocol}", self._thirdparty)
        app.router.add_get("/_matrix/mau/live", self._live)
        app.router.add_get("/_matrix/mau/ready", self._ready)
        return app

    def expect(self, mark: str) -> asyncio.Event:
        """An event that is set once a transaction with `mark` in it has been admitted."""
        self._expected = mark.encode(), asyncio.Event()
        return self._expected[1]

    async def start(self, hostname: str, port: int) -> None:
        """Listen. Raises OSError when the port is taken."""
        self._server = AiohttpServer(
            self.application(), self.connections, keepalive=_IDLE_SECONDS, farewell=2
        )
        await self._server.start(hostname, port)

    async def close(self) -> None:
        if self._server is not None:
            await self._server.close()

    @web.middleware
    async def _authenticate(
        self,
        request: web.Request,
        handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
    ) -> web.StreamResponse:
        if request.path.startswith("/_matrix/mau/"):
            return await handler(request)
        token = _token(request)
        if token is None:
            self.counters["unauthorized"] += 1
            return _error(401, "M_UNAUTHORIZED", "the hs_token is missing")
        given = token.encode("utf-8", "surrogateescape")
        right = [hmac.compare_digest(given, one) for one in self._hs_tokens]
        if not any(right):
            self.counters["unauthorized"] += 1
            self._warn_of_token()
            return _error(403, "M_FORBIDDEN", "wrong hs_token")
        self.heard_at = clock.now()
        try:
            return await handler(request)
        except web.HTTPNotFound:
            return _error(404, "M_UNRECOGNIZED", "unknown endpoint")
        except web.HTTPMethodNotAllowed:
            return _error(405, "M_UNRECOGNIZED", "wrong method")
        except web.HTTPRequestEntityTooLarge:
            return _error(413, "M_TOO_LARGE", "the request is too large")

    def _warn_of_token(self) -> None:
        # Whoever guesses tokens must not fill the log.
        if clock.now() - self._warned_at >= _WARNING_INTERVAL:
            self._warned_at = clock.now()
            log.warning(
                "a request with a wrong hs_token was refused: is the homeserver using "
                "the current registration file?"
            )

    async def _transaction(self, request: web.Request) -> web.Response:
        txn_id, self.pushed_at = request.match_info["txn_id"], clock.now()
        try:
            async with asyncio.timeout(_BODY_SECONDS):
                raw = await request.read()
        except TimeoutError:
            return _error(408, "M_UNKNOWN", "the transaction did not arrive in time")
        try:
            body: Any = json.loads(raw, parse_int=_integer)
        except ValueError:
            return _error(400, "M_NOT_JSON", "the transaction is not JSON")
        except RecursionError:
            # Nested beyond reading. Refused, it would come again for ever and block the queue.
            body = None
        events = self._events(body)
        try:
            await self._handler.admit(txn_id, events)
        except Exception as error:  # noqa: BLE001
            # Whatever it was, nothing is stored, and the homeserver sends it again.
            self.counters["transactions_refused"] += 1
            self.refused_at = clock.now()
            log.error("a transaction could not be stored", txn_id=txn_id, error=_one_line(error))
            return _error(500, "M_UNKNOWN", "the transaction could not be stored")
        self.counters["transactions"] += 1
        self.stored_at = clock.now()
        if self._expected is not None and self._expected[0] in raw:
            self._expected[1].set()
        return web.json_response({})

    def _events(self, body: Any) -> Events:
        events = items(mapping(body).get("events"))
        if events is None:
            self.counters["transactions_malformed"] += 1
            return []
        sound = [dict(event) for value in events if (event := mapping(value))]
        self.counters["events_malformed"] += len(events) - len(sound)
        return sound

    async def _user(self, request: web.Request) -> web.Response:
        if await self._handler.has_user(request.match_info["user_id"]):
            return web.json_response({})
        return _error(404, "M_NOT_FOUND", "no such agent")

    async def _alias(self, _request: web.Request) -> web.Response:
        # Aliases are made with their rooms, never on demand.
        return _error(404, "M_NOT_FOUND", "no such room")

    async def _ping(self, _request: web.Request) -> web.Response:
        self.counters["pings"] += 1
        return web.json_response({})

    async def _thirdparty(self, request: web.Request) -> web.Response:
        if request.match_info["kind"] in ("user", "location"):
            return web.json_response([])
        return _error(404, "M_NOT_FOUND", "no such protocol")

    async def _live(self, _request: web.Request) -> web.Response:
        return web.json_response({})

    async def _ready(self, _request: web.Request) -> web.Response:
        return web.json_response({}, status=200 if self._handler.is_ready() else 503)


def _token(request: web.Request) -> str | None:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token:
        return token
    # Homeservers before Matrix 1.4 send it in the query string only.
    return request.query.get("access_token")


def _integer(digits: str) -> int | float:
    # Python refuses to read integers of thousands of digits, and no field of ours needs them.
    return int(digits) if len(digits) < 20 else float(digits)


def _error(status: int, errcode: str, message: str) -> web.Response:
    return web.json_response({"errcode": errcode, "error": message}, status=status)


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
