"""Who sent a request, and over which connection, as the handlers of the MCP server see it."""

from typing import TYPE_CHECKING, Any

from letta_matrix.toolbox.principal import Principal

if TYPE_CHECKING:
    from mcp.server.connection import Connection
    from mcp.server.context import ServerRequestContext

PRINCIPAL = "letta_matrix.principal"
"""Where the principal is in the ASGI scope of an HTTP request."""


def principal_of(ctx: "ServerRequestContext[Any, Any]") -> Principal:
    """Whose token came with this request. Transports other than HTTP give the principal in place
    of the HTTP request."""
    request: Any = ctx.request
    return request if isinstance(request, Principal) else request.scope[PRINCIPAL]


def connection_of(ctx: "ServerRequestContext[Any, Any]") -> "Connection":
    """What lasts as long as the session; one request where there are no sessions."""
    # The SDK has no public way to it, though its `state` and `exit_stack` are made for handlers.
    return ctx.session._connection  # pyright: ignore[reportPrivateUsage]
