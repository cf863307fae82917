"""Who sent a request, with which address, over which connection, as the handlers of the MCP
server see it."""

from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from letta_matrix.access.principal import Principal
from letta_matrix.doors.mcp.refusals import Refusal
from letta_matrix.operations.toolbox.toolsets import Toolset

if TYPE_CHECKING:
    from mcp.server.connection import Connection
    from mcp.server.context import ServerRequestContext

PRINCIPAL = "letta_matrix.principal"
"""Where the principal is in the ASGI scope of an HTTP request."""

TOOLSET = "letta_matrix.toolset"
"""Where the set of tools is that the request's address names."""


def toolset_in(query: str) -> Toolset:
    """The set of tools that the query of an address names. Raises Refusal."""
    named = parse_qs(query, keep_blank_values=True).get("toolset", [str(Toolset.USUAL)])
    try:
        return Toolset(named[-1])
    except ValueError:
        known = ", ".join(f"`{one}`" for one in Toolset)
        raise Refusal(400, f"`toolset` should be one of {known}.") from None


def toolset_of(ctx: "ServerRequestContext[Any, Any]") -> Toolset:
    """The set of tools that a request's address names."""
    request: Any = ctx.request
    return request.scope[TOOLSET]


def principal_of(ctx: "ServerRequestContext[Any, Any]") -> Principal:
    """Whose token came with this request."""
    request: Any = ctx.request
    return request.scope[PRINCIPAL]


def connection_of(ctx: "ServerRequestContext[Any, Any]") -> "Connection":
    """What lasts as long as the session; one request where there are no sessions."""
    # The SDK has no public way to it, though its `state` and `exit_stack` are made for handlers.
    return ctx.session._connection  # pyright: ignore[reportPrivateUsage]
