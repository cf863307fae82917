"""What a metric is: a name, labels, what it says, and where its figures are read."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from letta_matrix.common.measures import Spans

PREFIX = "letta_matrix_"

Values = Mapping[tuple[str, ...], float]
"""A figure for each tuple of labels."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A metric with one figure for each tuple of labels; a counter, whose name ends in `_total`,
    only grows while the bridge runs. The values of `labels` are few, and nobody's ids."""

    name: str
    says: str
    labels: tuple[str, ...]
    read: Callable[[], Values]

    @property
    def kind(self) -> str:
        return "counter" if self.name.endswith("_total") else "gauge"


@dataclass(frozen=True, slots=True)
class Histogram:
    """A metric that counts spans of time, in seconds."""

    name: str
    says: str
    labels: tuple[str, ...]
    read: Callable[[], Iterable[Spans]]

    @property
    def kind(self) -> str:
        return "histogram"


Metric = Figure | Histogram


def one(value: float) -> Values:
    """The figure of a metric without labels."""
    return {(): value}


def by(counts: Mapping[str, float], *always: str) -> Values:
    """The figures of a metric with one label; those of `always` from the beginning, since who
    reads them sees no growth of what was not there before."""
    return {(name,): counts.get(name, 0) for name in dict.fromkeys((*always, *counts))}
