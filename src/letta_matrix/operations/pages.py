"""Lists that come in pages."""

from collections.abc import Callable, Sequence
from typing import Annotated, TypeVar

from pydantic import Field

Limit = Annotated[int, Field(ge=1, le=200, description="how many at most")]
After = Annotated[
    str | None, Field(max_length=1_000, description="`next` of an earlier answer, to go on")
]

T = TypeVar("T")
Mark = TypeVar("Mark")


def page_of(
    found: Sequence[T], limit: int, mark: Callable[[T], Mark]
) -> tuple[Sequence[T], Mark | None]:
    """The first of what was found, and `after` of the next page, None where there is none."""
    shown = found[:limit]
    return shown, mark(shown[-1]) if len(found) > limit else None
