"""The MCP server, made when the first client comes."""

from typing import TYPE_CHECKING, Any

from letta_matrix.doors.mcp.services import Services
from letta_matrix.doors.web.lazy import Once

if TYPE_CHECKING:
    from mcp.server.lowlevel import Server


class Core:
    """Makes the server that all transports share, with all that it imports."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._server = Once(self._make)

    async def server(self) -> "Server[dict[str, Any]]":
        """The server."""
        return await self._server.get()

    def _make(self) -> "Server[dict[str, Any]]":
        from letta_matrix.doors.mcp.server import make_server

        return make_server(self._services)
