"""Who may talk to the homeserver when: messages first, everything else in the gaps.

Synapse is the bottleneck of every exchange, so each request we make beside a
message takes from the messages (measured: an edit costs as much as a message).
"""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from letta_matrix.common import clock
from letta_matrix.common.waiting import is_set

_SLOW_SEND = 0.4
_MAX_YIELD = 2.0
_MAX_OBSERVED = 4.0


class Pacer:
    """One homeserver's budget.

    `urgent()` wraps messages and is never delayed. `background()` waits for a gap between
    messages, at most 2 s, so that it cannot starve. `edit_turn()` hands out
    places in the budget of interim edits, first come, first served.
    """

    def __init__(self, edits_per_second: float) -> None:
        self._edits_per_second = edits_per_second
        self._next_edit = 0.0
        self._urgent = 0
        self._gap = asyncio.Event()
        self._gap.set()
        self.latency = 0.0
        """Seconds a message takes to be accepted lately, smoothed."""
        self.edits = Counter[str]()
        """Interim edits `sent` and `lost`, and how many were `put_off` for want of a place."""

    @property
    def stretch(self) -> float:
        """By how much interim edits are slowed down: 1 on a homeserver that keeps up."""
        return max(1.0, self.latency / _SLOW_SEND)

    @asynccontextmanager
    async def urgent(self) -> AsyncGenerator[None]:
        self._urgent += 1
        self._gap.clear()
        started = clock.now()
        try:
            yield
        finally:
            self._observe(clock.now() - started)
            self._urgent -= 1
            if self._urgent == 0:
                self._gap.set()

    async def background(self) -> None:
        """Wait until no message is on its way."""
        if not self._gap.is_set():
            await is_set(self._gap, _MAX_YIELD)

    async def edit_turn(self) -> None:
        """Wait for a place in the budget of interim edits."""
        now = clock.now()
        # One second's worth may be used at once after a pause.
        place = max(self._next_edit, now - 1.0)
        self._next_edit = place + self.stretch / self._edits_per_second
        if place > now:
            self.edits["put_off"] += 1
            await asyncio.sleep(place - now)

    def _observe(self, seconds: float) -> None:
        # Capped: after an outage the waits of before say nothing about now.
        self.latency += 0.2 * (min(seconds, _MAX_OBSERVED) - self.latency)
