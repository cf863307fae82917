"""Whether it is still us who act, where several could."""

from collections.abc import Awaitable, Callable

Sure = Callable[[], Awaitable[float | None]]
"""Returns once it is known that nobody else acts in our place: until when, by the event loop's
clock, None for ever. Awaited right before what others notice and our database does not keep back.
Whoever was asleep, and whose place was taken meanwhile, does not get past it."""


async def alone() -> None:
    """The one of a bridge that has no replicas."""
