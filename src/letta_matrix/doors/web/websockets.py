"""WebSockets of the HTTP server (ASGI specification, WebSocket)."""

import asyncio
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame

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

    def is_awaited(self) -> bool:
        return False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.among.enter(self)
        super().connection_made(transport)

    def handle_ping(self) -> None:
        if self.writable.is_set():
            super().handle_ping()
        else:
            # Pongs that a client does not read would pile up; it cuts itself off before long.
            self.conn.data_to_send()

    def handle_cont(self, event: Frame) -> None:
        # Fragments of a few bytes are many times their size in uvicorn's list.
        whole = (
            self.frames[0] if isinstance(self.frames[0], bytearray) else bytearray(self.frames[0])
        )
        whole += event.data
        self.frames: Any = [whole]
        if event.fin:
            self.send_receive_event_to_app()
