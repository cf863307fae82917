"""Who is behind a proxy, and whom nobody believes: uvicorn's word for it, on which limits rest."""

from typing import Any

import pytest
from starlette.types import Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from letta_matrix.doors.mcp.http import peer_of

TRUSTED = ["10.0.0.0/8", "::1/128"]


async def client_of(peer: str, forwarded: list[str], trusted: list[str]) -> str:
    """Where a request of `peer` comes from, as the doors see it."""
    seen: list[str] = []

    async def app(scope: Scope, _receive: Receive, _send: Send) -> None:
        seen.append(peer_of(scope))

    headers = [(b"x-forwarded-for", one.encode()) for one in forwarded]
    scope: Any = {"type": "websocket", "client": (peer, 1), "headers": headers}
    nothing: Any = None
    await ProxyHeadersMiddleware(app, trusted)(scope, nothing, nothing)  # type: ignore[arg-type]
    return seen[0]


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("1.2.3.4", ["9.9.9.9"], "1.2.3.4"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["9.9.9.9"], "9.9.9.9"),
        ("::1", ["8.8.8.8, 9.9.9.9", "10.1.1.1"], "9.9.9.9"),
        ("10.0.0.1", ["9.9.9.9:443"], "9.9.9.9"),
        ("10.0.0.1", ["[2001:db8::1]:443"], "2001:db8::1"),
        ("10.0.0.1", ["2001:db8::1"], "2001:db8::1"),
        ("10.0.0.1", ["9.9.9.9, unknown"], "unknown"),
        ("10.0.0.1", [" , "], "10.0.0.1"),
        ("", ["9.9.9.9"], ""),
    ],
)
async def test_the_last_address_that_is_no_proxys_counts(
    peer: str, forwarded: list[str], client: str
) -> None:
    assert await client_of(peer, forwarded, TRUSTED) == client
    assert await client_of(peer, forwarded, []) == peer
