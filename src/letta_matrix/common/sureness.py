"""Whether it is still us who act, where several could."""

from collections.abc import Awaitable, Callable

Sure = Callable[[], Awaitable[object]]
"""Returns once it is known that nobody else acts in our place; awaited right before what others
notice and our database does not keep back. Whoever was asleep, and whose place was taken meanwhile,
does not get past it."""


async def alone() -> None:
    """The one of a bridge that has no replicas."""
