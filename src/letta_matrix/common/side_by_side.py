"""The same work for many things, a few at a time."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

_AT_ONCE = 8


async def side_by_side(work: Callable[[T], Awaitable[R]], of: Iterable[T]) -> list[R]:
    """What `work` gives for each, in their order."""
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one(each: T) -> R:
        async with gate:
            return await work(each)

    return await asyncio.gather(*map(one, of))
