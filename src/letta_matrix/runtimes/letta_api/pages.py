"""Pages of a Letta API's listings."""

from collections.abc import AsyncGenerator, Awaitable, Callable

from letta_matrix.common.json_fields import Json, id_of

PAGE = 50
"""The server's own default, so that no server gives less without being asked for less."""


def identity(message: Json) -> tuple[str, ...]:
    """What tells messages apart: one may come in pieces that share its id."""
    return tuple(str(message.get(name)) for name in ("id", "message_type", "otid"))


async def pages(
    page_after: Callable[..., Awaitable[list[Json]]], most: int, size: int = PAGE
) -> AsyncGenerator[list[Json]]:
    """The pages of a listing, got by the id `after` which each begins, until one is not full or
    holds nothing new: at most so many."""
    seen = set[tuple[str, ...]]()
    after: str | None = None
    for _ in range(most):
        page = await page_after(after=after)
        yield page
        identities = {identity(item) for item in page if id_of(item)}
        if len(page) < size or identities <= seen:
            return
        seen |= identities
        after = next((id_of(item) for item in reversed(page) if id_of(item)), "")
