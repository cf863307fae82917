"""Pages of messages out of pages of events, of which many are none: edits, traces, notices."""

import re
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from letta_matrix.access.faults import ToolError
from letta_matrix.common.json_fields import Json
from letta_matrix.matrix.room_reading import Page
from letta_matrix.operations.toolbox.timeline import is_message

_MOST_PAGES = 8
_EACH = 50
_PLACE = re.compile(r"(?P<token>.*)~(?P<way>[bf])(?P<skip>\d{1,3})", re.DOTALL)

Fetch = Callable[[str, int], Awaitable[Page]]
"""Gives the page of at most so many events from a token on, "" for the first page."""


class Messages(NamedTuple):
    """Messages in the order they were read in; `start` is where the first page began. `end` is
    the place to go on from, "" after the last; `reached` is the last place that there was."""

    found: list[Json]
    start: str
    end: str
    reached: str


async def collect(
    fetch: Fetch,
    place: str,
    limit: int,
    *,
    way: str = "b",
    wanted: Callable[[Json], bool] = is_message,
) -> Messages:
    """The next `limit` messages from a place on, perhaps fewer if there is much else between.

    A place is a token of the homeserver, or one with the number of events behind it that were
    read: `way` tells in which direction, "b" or "f". Raises ToolError for one of the other.
    """
    token, skip = _read(place, way)
    found: list[Json] = []
    start, reached = token, place
    for number in range(_MOST_PAGES):
        # The first page as small as it may be: mostly nothing else is between.
        page = await fetch(token, skip + limit if number == 0 else _EACH)
        token = token or page.start
        start = start or token
        for index, event in enumerate(page.events[skip:], skip + 1):
            found += [event] if wanted(event) else []
            if len(found) == limit and index < len(page.events):
                end = f"{token}~{way}{index}"
                return Messages(found, start, end, end)
        if page.events or page.end:
            # The last page need not have an end.
            reached = page.end or f"{token}~{way}{len(page.events)}"
        token, skip = page.end, 0
        if len(found) == limit or not token:
            break
    return Messages(found, start, token, reached or start)


def _read(place: str, way: str) -> tuple[str, int]:
    match = _PLACE.fullmatch(place)
    if match is None:
        return place, 0
    if match["way"] != way:
        raise ToolError("Give a place back as what it was given: `before` or `after`.")
    return match["token"], int(match["skip"])
