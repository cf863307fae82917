"""Work that goes on beside what has started it."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from letta_matrix.common.waiting import ended

T = TypeVar("T")


class Tasks(set[asyncio.Task[Any]]):
    """Tasks that nobody awaits, until they end: the event loop holds them by weak references
    alone."""

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Begin it. Where it is to await another's work, let it make that itself: ended before
        its first step, it would leave behind a coroutine that nobody awaits."""
        task = asyncio.create_task(work)
        self.add(task)
        task.add_done_callback(self.discard)
        return task

    async def cancel(self) -> None:
        """End them all, and wait until they have ended; what one raises is no more told.

        What one starts while it ends is ended too.
        """
        while self:
            await ended(*self)
