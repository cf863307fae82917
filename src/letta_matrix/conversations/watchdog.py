"""Ends the wait for a turn that is silent, takes too long, or was cancelled."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from enum import Enum

from letta_matrix.common import clock
from letta_matrix.common.parts import part

_LONGEST_TICK = 1.0


class Bite(Enum):
    """Why a watchdog ended the wait."""

    SILENT = "nothing came for too long"
    TOO_LONG = "it ran for too long"
    CANCELLED = "it was told to stop and did not"


@part
class Watchdog:
    """Watches one turn; times are seconds.

    While `waits()` (for a person's approval, which has an end of its own) no time passes. While
    `calls()` (a tool of ours that waits for somebody, as often as the agent likes) the turn may
    be silent, but no longer than `total`. What is left of that counts only inside of
    `running()`, over several of them.
    """

    _idle: float
    _total: float
    _waits: Callable[[], bool]
    _calls: Callable[[], bool] = lambda: False

    def __post_init__(self) -> None:
        self._left = self._total
        self._heard = float("-inf")
        self._begun = self._seen = clock.now()
        self._stop_at = float("inf")
        self._scope: asyncio.Timeout | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.bite: Bite | None = None

    def heard(self) -> None:
        """The turn's runtime works on it now."""
        self._heard = clock.now()

    def ran_since(self, moment: float) -> bool:
        """Whether the runtime was heard of after `moment` (monotonic)."""
        return self._heard > moment

    def stop(self, grace: float) -> None:
        """The turn was cancelled: it has `grace` to end by itself."""
        self._stop_at = clock.now() + grace
        self._look()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Raises TimeoutError after a bite, whose reason is then in `bite`."""
        self._begun = self._seen = clock.now()
        async with asyncio.timeout(None) as scope:
            self._scope = scope
            self._look()
            try:
                yield
            finally:
                self._count()
                self._scope = None
                if self._timer is not None:
                    self._timer.cancel()

    def _look(self) -> None:
        if self._scope is None:
            return
        if self._timer is not None:
            self._timer.cancel()
        now = self._count()
        due = {
            Bite.SILENT: max(self._heard, self._begun) + self._idle - now,
            Bite.TOO_LONG: self._left,
            Bite.CANCELLED: self._stop_at - now,
        }
        first = min(due, key=lambda bite: due[bite])
        loop = asyncio.get_running_loop()
        if due[first] <= 0:
            self.bite = first
            self._scope.reschedule(loop.time())
        else:
            self._timer = loop.call_later(min(due[first], _LONGEST_TICK), self._look)

    def _count(self) -> float:
        """Take the time since the last look off what is left; returns now."""
        now, waits = clock.now(), self._waits()
        if waits or self._calls():
            self._begun = now
        if not waits:
            self._left -= now - self._seen
        self._seen = now
        return now
