"""When to try again."""

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Pauses without end: from `first` seconds, each `growth` times as long as the one before it,
    to `longest`. Each `iter` of it begins anew."""

    first: float
    longest: float
    growth: float = 2.0

    def __iter__(self) -> Iterator[float]:
        pause = self.first
        while True:
            yield pause
            pause = min(pause * self.growth, self.longest)
