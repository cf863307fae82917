"""What people are told while their answer waits for a runtime, and what becomes of that."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Generator
from dataclasses import dataclass
from itertools import count

import structlog

from letta_matrix.common import clock
from letta_matrix.common.tasks import Tasks
from letta_matrix.conversations import notices
from letta_matrix.conversations.reply import Reply
from letta_matrix.runtimes.faults import RateLimited, RuntimeBusy, RuntimeUnavailable
from letta_matrix.store.database import StoreUnavailable
from letta_matrix.store.outbox import OutboxKind

log = structlog.get_logger()

_LOOK = 2.0
"""Seconds between two looks at whether a runtime that was asked hangs."""

_AGAIN = 60.0
"""Seconds after a word was put in the past before the same is said anew: a runtime that comes and
goes is worth no more."""


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
    """Says in a turn's room why its answer takes longer, once for each reason until it goes on."""

    def __init__(self, reply: Reply) -> None:
        self._beside = reply.beside
        self._background = Tasks()
        self._past_since = float("-inf")
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

    def take_back(self) -> None:
        """The turn goes on: what was said, by an earlier process too, is past now. Holds nobody
        up; what of it is not said when the turn ends is said with that, by `end`."""
        self.are_told, self._past_since = False, clock.now()
        self._background.start(self._take_back())

    async def end(self) -> None:
        """The turn ends: what still stands there is put in the past together with its end."""
        await self.stop()
        for delay in _ALL:
            self._beside.rewrite_at_end(OutboxKind.NOTICE, self._key(delay), delay.afterwards)

    async def stop(self) -> None:
        """Take back nothing more by itself."""
        await self._beside.cut_short(*self._background)

    @contextlib.asynccontextmanager
    async def telling_silence(self, hangs: Callable[[], bool]) -> AsyncGenerator[None]:
        """Meanwhile say so if the runtime takes connections and does not answer: requests to it
        fail only after half a minute, and a turn under way not at all."""
        telling = asyncio.create_task(self._tell_silence(hangs))
        try:
            yield
        finally:
            await self._beside.cut_short(telling)

    async def _tell_silence(self, hangs: Callable[[], bool]) -> None:
        while True:
            await asyncio.sleep(_LOOK)
            if hangs():
                await self._tell(_AWAY)

    async def _take_back(self) -> None:
        for delay in _ALL:
            with _told_later():
                key = self._key(delay)
                await self._beside.rewrite_posted(OutboxKind.NOTICE, key, delay.afterwards)

    async def _tell(self, delay: Delay) -> None:
        key = self._key(delay)
        if key != delay.key and clock.now() - self._past_since < _AGAIN:
            return
        with _told_later():
            await self._beside.notify(key, delay.now)
            self.are_told = True

    def _key(self, delay: Delay) -> str:
        """What its word goes by that stands there, or is to be said next."""
        keys = (f"{delay.key} {number}" if number else delay.key for number in count())
        return next(key for key in keys if not self._beside.is_over(OutboxKind.NOTICE, key))


@contextlib.contextmanager
def _told_later() -> Generator[None]:
    """What becomes of such a word is nothing to the turn, which goes on."""
    try:
        yield
    except StoreUnavailable as error:
        log.info("a delay is told later", reason=str(error))
    except Exception as error:
        log.error("a delay is not told", exc_info=error)
