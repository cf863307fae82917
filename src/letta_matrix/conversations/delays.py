"""What people are told while their answer waits for a runtime, and what becomes of that."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass

from letta_matrix.common.waiting import ended, is_set
from letta_matrix.conversations import notices
from letta_matrix.conversations.reply import Reply
from letta_matrix.runtimes.faults import RateLimited, RuntimeBusy, RuntimeUnavailable
from letta_matrix.store.outbox import OutboxKind

_LOOK = 2.0
"""Seconds between two looks at whether a runtime that was asked hangs."""


@dataclass(frozen=True, slots=True)
class Delay:
    """Why an answer takes longer: what is said of it, and what that becomes when it goes on."""

    key: str
    now: str
    afterwards: str


_AWAY = Delay("unavailable", notices.UNAVAILABLE, notices.WAS_AWAY)
_BUSY = Delay("busy", notices.BUSY, notices.WAS_BUSY)
_LIMITED = Delay("rate limited", notices.RATE_LIMITED, notices.HAD_TO_WAIT)
_ALL = (_AWAY, _BUSY, _LIMITED)


class Delays:
    """Says in a turn's room why its answer takes longer, once for each reason."""

    def __init__(self, reply: Reply) -> None:
        self._beside = reply.beside
        self.are_told = any(self._beside.posted(OutboxKind.NOTICE, one.key) for one in _ALL)
        """Whether something stands there that holds until the turn goes on."""

    async def tell(self, error: RuntimeUnavailable) -> None:
        """Say what a runtime's fault means for who waits."""
        match error:
            case RuntimeBusy():
                await self._tell(_BUSY)
            case RateLimited():
                await self._tell(_LIMITED)
            case _:
                await self._tell(_AWAY)

    async def take_back(self) -> None:
        """The turn goes on, or ends: what was said, by an earlier process too, is past now."""
        self.are_told = False
        for delay in _ALL:
            await self._beside.rewrite_posted(OutboxKind.NOTICE, delay.key, delay.afterwards)

    @contextlib.asynccontextmanager
    async def telling_silence(self, hangs: Callable[[], bool]) -> AsyncGenerator[None]:
        """Meanwhile say so if the runtime takes connections and does not answer: requests to it
        fail only after half a minute, and a turn under way not at all."""
        over = asyncio.Event()
        telling = asyncio.create_task(self._tell_silence(hangs, over))
        try:
            yield
            over.set()
            await telling
        finally:
            await ended(telling)

    async def _tell_silence(self, hangs: Callable[[], bool], over: asyncio.Event) -> None:
        while not await is_set(over, _LOOK):
            if hangs():
                await self._tell(_AWAY)
                break

    async def _tell(self, delay: Delay) -> None:
        await self._beside.notify(delay.key, delay.now)
        self.are_told = True
