"""Keeps what repeats itself from filling the log."""

import asyncio
import threading
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

import structlog

from letta_matrix.common import clock

SPAN = 60.0
"""Seconds in which lines count as repeated."""
OF_A_KIND = 100
"""Lines of one event in that time, whatever else is in them."""
IN_ALL = 1_000
"""Faults in that time, and as many other lines."""
_QUIET = ("debug", "info")
_TOO_MUCH = "some lines were left out of the log"

Line = Mapping[str, Any]


@dataclass(slots=True)
class _Window:
    """What was said since it began, and left unsaid; `line` tells of that."""

    line: Line
    began: float
    said: int = 0
    unsaid: int = 0


class Repeats:
    """A processor for structlog, behind `add_log_level`.

    A fault (a warning, or worse) that is the same in every field is said once in SPAN. What was
    left unsaid is counted, and the count is said when SPAN is over, as `repeated`.
    """

    def __init__(self, say: Callable[[Line], None]) -> None:
        self._say = say
        self._windows: dict[object, _Window] = {}
        self._lock = threading.Lock()
        self._telling: asyncio.TimerHandle | None = None

    def __call__(
        self, _logger: object, _name: str, line: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        if "repeated" in line:
            return line
        self._tell_of(self._ended())
        with self._lock:
            passes = self._passes(line)
        if passes:
            return line
        self._tell_later()
        raise structlog.DropEvent

    def _passes(self, line: Line) -> bool:
        level, event = str(line.get("level")), str(line["event"])
        kind = (level, event)
        # What is no fault leaves no fault unsaid.
        is_fault = level not in _QUIET
        limits: list[tuple[object, int, Line]] = [
            (kind, OF_A_KIND, {"level": level, "event": event}),
            (is_fault, IN_ALL, {"level": "warning", "event": _TOO_MUCH}),
        ]
        if is_fault:
            limits.insert(0, (_key(line), 1, _plain(line)))
        for key, most, _ in limits:
            window = self._windows.get(key)
            if window is not None and window.said >= most:
                window.unsaid += 1
                return False
        # Only now, so that there are never more of them than lines that were said.
        for key, _, told in limits:
            self._windows.setdefault(key, _Window(told, clock.now())).said += 1
        return True

    def _ended(self) -> list[_Window]:
        """Those that are over, which are forgotten; in the order in which they began."""
        now, ended = clock.now(), list[_Window]()
        with self._lock:
            while self._windows:
                key, window = next(iter(self._windows.items()))
                if now - window.began < SPAN:
                    break
                ended.append(self._windows.pop(key))
        return ended

    def _tell_of(self, ended: list[_Window]) -> None:
        for window in ended:
            if window.unsaid:
                self._say({**window.line, "repeated": window.unsaid})

    def _tell_later(self) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return  # a thread: the next line tells
        if self._telling is None:
            self._telling = loop.call_later(SPAN, self._tell)

    def _tell(self) -> None:
        self._telling = None
        self._tell_of(self._ended())
        with self._lock:
            more = any(window.unsaid for window in self._windows.values())
        if more:
            self._tell_later()


def _plain(line: Line) -> Line:
    return {name: value for name, value in line.items() if name != "exc_info"}


def _key(line: Line) -> object:
    """What is the same in lines that are the same."""
    error = line.get("exc_info")
    fault = f"{type(error).__name__}: {error}" if isinstance(error, BaseException) else ""
    return fault, *((name, repr(value)) for name, value in sorted(_plain(line).items()))
