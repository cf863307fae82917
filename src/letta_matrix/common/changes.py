"""Waiting for what is remembered to become so."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class Changes:
    """Whoever remembers something tells of each change; whoever waits for one looks then."""

    def __init__(self) -> None:
        self._waiting: set[asyncio.Event] = set()

    def tell(self) -> None:
        """Something is otherwise now."""
        for one in self._waiting:
            one.set()

    async def until(self, found: Callable[[], T | None], within: float) -> T | None:
        """What `found` gives as soon as it gives something, None if it does not `within`
        seconds."""
        changed = asyncio.Event()
        self._waiting.add(changed)
        try:
            async with asyncio.timeout(within):
                while (one := found()) is None:
                    await changed.wait()
                    changed.clear()
                return one
        except TimeoutError:
            return None
        finally:
            self._waiting.discard(changed)
