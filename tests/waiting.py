"""Waiting in tests: for things that happen, with one deadline; and a clock that a test can move.

Nothing here, and no test, says how fast something has to be. `DEADLINE` is what ends a wait for
what never comes, far beyond what a busy machine takes.
"""

import asyncio
import inspect
import math
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, overload
from weakref import WeakKeyDictionary

T = TypeVar("T")

DEADLINE = 90.0
"""Seconds that anything may take."""
_FIRST_PAUSE, _LAST_PAUSE = 0.001, 0.02

_CLOCKS: WeakKeyDictionary[asyncio.AbstractEventLoop, "Clock"] = WeakKeyDictionary()


class Clock:
    """The event loop's clock in a test's hands; everything of ours that waits goes by it.

    It runs as clocks do until it is told otherwise, and it never goes back. Requests to servers
    in other processes do not go by it, their timeouts do: move it where none is under way.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._real = loop.time
        self._ahead = 0.0
        self._stopped: float | None = None
        loop.time = self.now

    @classmethod
    def of(cls, loop: asyncio.AbstractEventLoop) -> "Clock":
        """The one clock of a loop."""
        if loop not in _CLOCKS:
            _CLOCKS[loop] = cls(loop)
        return _CLOCKS[loop]

    def now(self) -> float:
        """Seconds, as `letta_matrix.common.clock.now` tells them."""
        return self._real() + self._ahead if self._stopped is None else self._stopped

    def stop(self) -> None:
        """Let time stand still: what waits for a moment to come waits for `advance`."""
        # At a moment from which whole seconds are added without rounding: one that is missed by
        # a billionth would never come.
        self._stopped = math.ceil(self.now() * 1024) / 1024

    def go(self) -> None:
        """Let time pass again, from where it stood."""
        if self._stopped is not None:
            self._ahead, self._stopped = self._stopped - self._real(), None

    def advance(self, seconds: float) -> None:
        """Be `seconds` later. What was due by then happens when the test next awaits."""
        if self._stopped is None:
            self._ahead += seconds
        else:
            self._stopped += seconds

    async def until(self, condition: Callable[[], object], step: float = 0.5) -> None:
        """Let time pass, `step` seconds at each look, until `condition()` holds: for waits that
        follow upon each other, such as retries."""

        began = time.monotonic()
        while not condition():
            assert time.monotonic() - began < DEADLINE, "it did not happen"
            self.advance(step)
            await moment()

    async def through(self, work: Awaitable[T], step: float = 0.5) -> T:
        """Await what takes time, and let that pass as `until` does."""
        task = asyncio.ensure_future(work)
        await self.until(task.done, step)
        return await task


@overload
async def eventually(
    probe: Callable[[], Awaitable[T]], accept: Callable[[T], object] = ..., what: str = ...
) -> T: ...


@overload
async def eventually(
    probe: Callable[[], T], accept: Callable[[T], object] = ..., what: str = ...
) -> T: ...


async def eventually(
    probe: Callable[[], Any], accept: Callable[[Any], object] = bool, what: str = ""
) -> Any:
    """Look until what `probe` finds is accepted, and return it; `what` names it in the error."""
    began, pause = time.monotonic(), _FIRST_PAUSE
    while True:
        found = probe()
        if inspect.isawaitable(found):
            found = await found
        if accept(found):
            return found
        assert time.monotonic() - began < DEADLINE, f"{what or 'it'} did not happen: {found!r}"
        # Most things are there at once; a server that starts need not be asked all the time.
        await moment(pause)
        pause = min(pause * 1.5, _LAST_PAUSE)


async def within(awaitable: Awaitable[T]) -> T:
    """Await what must come to an end."""
    async with deadline():
        return await awaitable


def deadline() -> asyncio.Timeout:
    """A block that must come to an end."""
    return asyncio.timeout(DEADLINE)


async def settled(task: asyncio.Task[Any] | None = None) -> None:
    """Let everything that could happen in this loop happen, as far as no clock, no thread and no
    other process is needed for it. For what must *not* follow from something; `task` is one that
    must still be waiting then."""
    for _ in range(100):
        await asyncio.sleep(0)
    assert task is None or not task.done(), "it did not wait"


async def moment(seconds: float = 0.01) -> None:
    """Sleep, though the loop's clock may stand still. Not for waiting: what is waited for is
    looked for, with `eventually`."""
    await asyncio.get_running_loop().run_in_executor(None, time.sleep, seconds)
