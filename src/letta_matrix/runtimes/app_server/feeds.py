"""The frames of conversations, for those who follow them."""

import asyncio
from collections.abc import Generator
from contextlib import contextmanager
from enum import Enum

from letta_matrix.runtimes.app_server.frames import Scope, ScopedFrame


class Mark(Enum):
    """What a feed can hold besides frames."""

    LOST = "the stream broke; frames may be missing from here on"
    CANCELLED = "the turn was aborted and nothing more came"


Feed = asyncio.Queue[ScopedFrame | Mark]


async def next_of(feed: Feed, deadline: float | None) -> ScopedFrame | Mark | None:
    """What comes next; None where nothing comes before a moment of the loop's clock, if any."""
    try:
        async with asyncio.timeout_at(deadline):
            return await feed.get()
    except TimeoutError:
        return None


class Feeds:
    """Hands each conversation's frames to all its feeds."""

    def __init__(self) -> None:
        self._feeds: dict[Scope, list[Feed]] = {}

    @property
    def scopes(self) -> list[Scope]:
        """Conversations that somebody follows."""
        return list(self._feeds)

    @contextmanager
    def subscribe(self, scope: Scope) -> Generator[Feed]:
        """The conversation's frames from now on."""
        feed: Feed = asyncio.Queue()
        feeds = self._feeds.setdefault(scope, [])
        feeds.append(feed)
        try:
            yield feed
        finally:
            feeds.remove(feed)
            if not feeds:
                del self._feeds[scope]

    def of(self, scope: Scope) -> list[Feed]:
        return list(self._feeds.get(scope, ()))

    def put(self, scope: Scope, item: ScopedFrame | Mark) -> None:
        for feed in self._feeds.get(scope, ()):
            feed.put_nowait(item)

    def put_everywhere(self, mark: Mark) -> None:
        for scope in self._feeds:
            self.put(scope, mark)
