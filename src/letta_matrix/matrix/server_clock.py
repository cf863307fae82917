"""The homeserver's clock, by which messages are dated."""

import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

from letta_matrix.common.clock import since_boot

_TOLERATED = 60.0
"""Seconds; below, a clock that is set by hand and a slow answer look the same."""


_EXACT = 2.0
"""Seconds; below, a clock that is right looks the same: headers leave out what is less than one,
and an answer takes its time."""


class ServerClock:
    """How far our clock is ahead of the homeserver's, as its answers tell (RFC 9110 section
    6.6.1); the same, as long as none did."""

    def __init__(self) -> None:
        self.ahead = 0.0
        """Seconds; negative where ours is behind."""
        self._began: float | None = None
        """What time it was there when this machine was started."""

    def dated(self, headers: Mapping[str, str]) -> None:
        """An answer has come just now. What a cache has kept (`Age`) tells nothing."""
        told = headers.get("Date")
        if told is None or headers.get("Age") is not None:
            return
        try:
            ahead = time.time() - parsedate_to_datetime(told).timestamp()
        except (ValueError, OverflowError):
            return
        self.ahead = ahead if abs(ahead) > _EXACT else 0.0
        self._began = time.time() - self.ahead - since_boot()

    def now(self) -> float:
        """What time it is there (Unix time). Where our clock was set since the last answer, perhaps
        together with theirs, it is the earlier one: nothing is taken for older than it is."""
        ours = time.time() - self.ahead
        return ours if self._began is None else min(ours, self._began + since_boot())

    @property
    def is_off(self) -> bool:
        """Whether the two differ by more than a minute."""
        return abs(self.ahead) > _TOLERATED
