"""The MCP server, made when the first client comes."""

import asyncio
from typing import TYPE_CHECKING, Any

from letta_matrix.mcp.services import Services

if TYPE_CHECKING:
    from mcp.server.lowlevel import Server


class Core:
    """Makes the server that all transports share, in a thread, with all that it imports.

    A bridge that no MCP client comes to need not hold the SDK in memory.
    """

    def __init__(self, services: Services) -> None:
        self._services = services
        self._made: Server[dict[str, Any]] | None = None
        self._making = asyncio.Lock()

    async def server(self) -> "Server[dict[str, Any]]":
        """The server."""
        if self._made is None:
            async with self._making:
                if self._made is None:
                    self._made = await asyncio.to_thread(self._make)
        return self._made

    def _make(self) -> "Server[dict[str, Any]]":
        from letta_matrix.mcp.server import make_server

        return make_server(self._services)
