"""The MCP server, made when the first client comes."""

from functools import partial
from typing import TYPE_CHECKING, Any

from letta_matrix.common.once import Once
from letta_matrix.doors.mcp.services import Services

if TYPE_CHECKING:
    from mcp.server.lowlevel import Server


class Core(Once["Server[dict[str, Any]]"]):
    """The server that all transports share, with all that it imports."""

    def __init__(self, services: Services) -> None:
        super().__init__(partial(_make, services))


def _make(services: Services) -> "Server[dict[str, Any]]":
    from letta_matrix.doors.mcp.server import make_server

    return make_server(services)
