"""A connection over TCP whose ends notice within ten seconds that the other one is gone."""

import asyncio
from typing import Any

from letta_matrix.common import clock
from letta_matrix.runtimes.keeper import wire

BEAT = 2.5
"""Seconds between two signs of life."""
SILENCE = 7.0
"""Seconds without any byte after which the other side counts as gone. With the time to the next
look, ten at most: a machine that lost its power or its network closes no connection."""


class Line(asyncio.StreamReaderProtocol):
    """Counts whatever comes as a sign of life; `watch` sends ours and looks for the other's."""

    _heard_at = 0.0
    _look: asyncio.TimerHandle | None = None
    _carrier: asyncio.Transport | None = None

    def connection_made(self, transport: Any) -> None:
        self._carrier = transport
        self._heard_at = clock.now()
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._carrier = None
        if self._look is not None:
            self._look.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._heard_at = clock.now()
        super().data_received(data)

    def watch(self) -> None:
        """Begin, once each side knows who the other is."""
        self._look = asyncio.get_running_loop().call_later(BEAT, self._beat)

    def _beat(self) -> None:
        if self._carrier is None:
            return
        closing = self._carrier.is_closing()
        # Who has not read what came cannot have heard more; one that is to be closed, and waits
        # for somebody to take the rest, has heard enough.
        listens = closing or self._carrier.is_reading()
        if listens and clock.now() - self._heard_at > SILENCE:
            self._carrier.abort()
            return
        if not closing:
            self._carrier.write(_SIGN_OF_LIFE)
        self.watch()


_SIGN_OF_LIFE = wire.pack_control({"type": "beat"})
