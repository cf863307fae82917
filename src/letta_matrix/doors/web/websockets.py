"""WebSockets of the HTTP server (ASGI specification, WebSocket)."""

import asyncio
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from letta_matrix.common.connections.admission import Accepted, Connections

FAREWELL = 1.0
"""Seconds that a client has to answer our close frame."""


class WebSocketConnection(Accepted, WebSocketsSansIOProtocol):
    """A connection that stays while it is idle. Applications find it as `connection` in the
    `state` of their scope."""

    def __init__(self, among: Connections, **options: Any) -> None:
        super().__init__(**options)
        self.among = among
        self.close_timeout = FAREWELL
        self.app_state["connection"] = self

    def is_idle(self) -> bool:
        return False

    def is_sending(self) -> bool:
        return False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.among.enter(self)
        super().connection_made(transport)
