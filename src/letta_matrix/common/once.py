"""What is made when somebody first asks for it."""

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Once(Generic[T]):
    """Stands for what `make` makes, in a thread, with all that it imports.

    Bridges whose doors nobody uses need not hold the doors' libraries in memory.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._made: T | None = None
        self._making = asyncio.Lock()

    async def get(self) -> T:
        """It, the same for everybody."""
        if self._made is None:
            async with self._making:
                if self._made is None:
                    self._made = await asyncio.to_thread(self._make)
        return self._made
