"""Which `Host` and `Origin` headers a door accepts.

A page in somebody's browser can reach servers on that machine under a name of its own (DNS
rebinding) and so pass for same-origin. It cannot choose the `Host` header: that is its own name,
which no door knows. MCP demands the check of `Origin` (specification, "Transports", security).
"""

import ipaddress
import re
from collections.abc import Collection, Mapping
from http import HTTPStatus
from urllib.parse import urlsplit

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from letta_matrix.common.parts import part
from letta_matrix.config import Config

PROBLEMS = "https://letta-matrix.dev/problems/"
"""What the `type` of each problem document begins with."""

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_EVERYWHERE = ("0.0.0.0", "::", "")  # noqa: S104 - read, not bound
_USUAL_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,255})(?::([0-9]{0,5}))?")

HostPort = tuple[str, int | None]


class Refused(Exception):
    """A request for a host that is not ours, or from a web page that may not send it. `slug` ends
    the problem's `type` (RFC 9457)."""

    def __init__(self, status: int, slug: str, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.slug = slug


@part
class Guard:
    """Knows a door's names and the web pages that may use it.

    Accepted as `Host`, with any port, since tunnels and containers change that: loopback's names,
    the address the door is bound to, `public_url`'s host, and `allowed_hosts`. Bound to all
    addresses it answers to any IP address, which no page can have as its name, but to no further
    names. Accepted as `Origin`: none (no browser), the door's own, `public_url`'s, `origins`.
    """

    _section: str
    _hostname: str
    _public_url: str | None
    _allowed_hosts: Collection[str]
    _origins_key: str
    _allowed_origins: Collection[str]

    def __post_init__(self) -> None:
        named = (*_LOOPBACK, self._hostname, *self._allowed_hosts)
        self._any_address = self._hostname in _EVERYWHERE
        self._names = {_plain(name) for name in named}
        self._origins = {_canonical(origin) for origin in self._allowed_origins}
        if self._public_url is not None:
            parts = urlsplit(self._public_url)
            self._names.add(_plain(parts.hostname or ""))
            self._origins.add(_canonical(f"{parts.scheme}://{parts.netloc}"))

    def check(self, host: str | None, origin: str | None) -> None:
        """Pass a request with these headers (None: it has none). Raises Refused."""
        if not host:
            raise Refused(400, "host-missing", "The request has no `Host` header.")
        named = _host_port(host)
        if named is None or not self._is_ours(named[0]):
            raise Refused(
                421,
                "host-refused",
                "The `Host` header names no host of this server; the operator can allow it by "
                f"`{self._section}.allowed_hosts` or `{self._section}.public_url`.",
            )
        if origin is not None and not self._may_come_from(origin, named):
            raise Refused(
                403,
                "origin-refused",
                "This web page may not use the server; the operator can allow its `Origin` by "
                f"`{self._section}.{self._origins_key}`.",
            )

    def check_scope(self, scope: Scope) -> None:
        """Pass an ASGI request. Raises Refused."""
        self.check(_header(scope, b"host"), _header(scope, b"origin"))

    def knows(self, scope: Scope) -> bool:
        """Whether `check_scope` would let it pass."""
        try:
            self.check_scope(scope)
        except Refused:
            return False
        return True

    def _is_ours(self, name: str) -> bool:
        return name in self._names or (self._any_address and _address(name) is not None)

    def _may_come_from(self, origin: str, host: HostPort) -> bool:
        page = _canonical(origin)
        if page is None:
            return False
        scheme, name, port = page
        # Behind a proxy the scheme of the door itself is not known.
        own = (name, port) == (host[0], host[1] or _USUAL_PORTS[scheme])
        return own or page in self._origins


class Guarded:
    """An ASGI application that only requests come to which `guard` lets pass."""

    def __init__(self, app: ASGIApp, guard: Guard) -> None:
        self._app = app
        self._guard = guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        try:
            self._guard.check_scope(scope)
        except Refused as refused:
            if scope["type"] == "http":
                said = problem(refused.status, refused.slug, str(refused))
                await said(scope, receive, send)
            else:
                # Before it is accepted: the server answers 403 (ASGI, WebSocket, "Close").
                await send({"type": "websocket.close", "code": 1008})
        else:
            await self._app(scope, receive, send)


def api_guard(config: Config) -> Guard:
    """The REST API's."""
    api = config.api
    return Guard(
        "api", api.hostname, api.public_url, api.allowed_hosts, "cors_origins", api.cors_origins
    )


def mcp_guard(config: Config) -> Guard:
    """The MCP server's, on both of its ports."""
    mcp = config.mcp
    return Guard(
        "mcp",
        mcp.hostname,
        mcp.public_url,
        mcp.allowed_hosts,
        "allowed_origins",
        mcp.allowed_origins,
    )


def problem(
    status: int, slug: str, detail: str, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """What a door answers in the API's place, as the API does (RFC 9457)."""
    title = HTTPStatus(status).phrase
    document = {"type": PROBLEMS + slug, "title": title, "status": status, "detail": detail}
    return JSONResponse(document, status, headers, media_type="application/problem+json")


def _header(scope: Scope, name: bytes) -> str | None:
    """A header's value; of one that comes twice nothing that passes."""
    values = [value.decode("latin-1") for key, value in scope["headers"] if key == name]
    return ",".join(values) if values else None


def _host_port(host: str) -> HostPort | None:
    """The parts of a `Host` header (RFC 9110 section 7.2), None for what is none."""
    match = _HOST.fullmatch(host)
    return None if match is None else (_plain(match[1]), int(match[2]) if match[2] else None)


def _canonical(origin: str) -> tuple[str, str, int] | None:
    """Scheme, host and port of an origin (RFC 6454), None for `null` and what is none."""
    scheme, separator, host = origin.partition("://")
    scheme = scheme.lower()
    named = _host_port(host)
    if not separator or scheme not in _USUAL_PORTS or named is None:
        return None
    return scheme, named[0], named[1] or _USUAL_PORTS[scheme]


def _plain(name: str) -> str:
    """The one way to write a host's name or address."""
    bare = name.lower().strip("[]").removesuffix(".")
    address = _address(bare)
    return bare if address is None else address.compressed


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None
