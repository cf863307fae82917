"""Figures of what takes time or fails, for whoever watches the bridge. Those who work count;
`app/metrics.py` reads."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager

from letta_matrix.common import clock

REQUEST_BOUNDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
"""Seconds that tell requests to a server apart."""
TURN_BOUNDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Seconds that tell turns apart, and the stages of one."""


class Spans:
    """How long something took, counted up to each of the `bounds` (seconds) and beyond the last,
    for each tuple of labels. Whoever adds takes labels of few values: each is kept for ever."""

    def __init__(self, *bounds: float) -> None:
        self.bounds = bounds
        self.counts: dict[tuple[str, ...], list[int]] = {}
        self.sums: dict[tuple[str, ...], float] = {}

    def add(self, seconds: float, *labels: str) -> None:
        """Count one."""
        counts = self.counts.get(labels)
        if counts is None:
            # The sum first: who reads meanwhile, perhaps in another thread, finds both.
            self.sums[labels] = 0.0
            counts = self.counts[labels] = [0] * (len(self.bounds) + 1)
        counts[bisect_left(self.bounds, seconds)] += 1
        self.sums[labels] += seconds


class Calls:
    """Calls of somebody else: how long they took, and how often they failed, by labels.
    `fault_of` names the kind of a failure, "" for what is none. `heard` is told of each: its
    labels, when it began (`clock.now`), and the fault."""

    def __init__(self, fault_of: Callable[[Exception], str], *bounds: float) -> None:
        self._fault_of = fault_of
        self.spans = Spans(*bounds)
        self.faults = Counter[tuple[str, ...]]()
        self.heard: Callable[[tuple[str, ...], float, str], None] | None = None

    @contextmanager
    def timed(self, *labels: str) -> Generator[None]:
        """Count what the block does, unless it is cancelled."""
        started = clock.now()
        try:
            yield
        except Exception as error:
            if fault := self._fault_of(error):
                self.faults[*labels, fault] += 1
            self._add(started, labels, fault)
            raise
        self._add(started, labels, "")

    def _add(self, started: float, labels: tuple[str, ...], fault: str) -> None:
        self.spans.add(clock.now() - started, *labels)
        if self.heard is not None:
            self.heard(labels, started, fault)
