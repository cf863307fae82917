"""The turns of this process: those of one queue one by one, different queues side by side."""

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import field
from typing import Protocol

import structlog
from structlog.contextvars import bound_contextvars

from letta_matrix.common.backoff import Backoff
from letta_matrix.common.parts import part
from letta_matrix.common.tasks import Tasks
from letta_matrix.common.waiting import ended
from letta_matrix.conversations.journeys import Journeys
from letta_matrix.conversations.queues import is_answer, queue_of
from letta_matrix.matrix.homeserver import HomeserverUnavailable
from letta_matrix.store.database import StoreUnavailable
from letta_matrix.store.places import Place
from letta_matrix.store.turns import Turn, TurnKind, TurnStatus

log = structlog.get_logger()

TRIES = 5
"""How often a turn may fail that nothing from outside holds up."""

_PAUSES = Backoff(1.0, 10.0)
_ASIDE = 120.0
"""Seconds until a turn that could be neither run nor given up is taken up again."""


class Runner(Protocol):
    """Takes turns of one kind to their end."""

    async def run(self, turn: Turn, *, recovered: bool) -> None:
        """Do it exactly once. `recovered`: an earlier try may have got somewhere."""
        ...

    async def give_up(self, turn: Turn) -> None:
        """End a turn that failed again and again, with a word to the person."""
        ...


@part
class TurnQueues:
    """Runs turns by their kind's runner, with a worker for each queue. `queued` hears of turns
    that come to wait behind another, `ended` and `journeys` of those that end."""

    _runners: Mapping[TurnKind, Runner]
    _counters: Counter[str]
    _queued: Callable[[Turn], None]
    _ended: Callable[[Turn], Awaitable[None]]
    journeys: Journeys = field(default_factory=Journeys)

    def __post_init__(self) -> None:
        self._tries = Tries(self._runners, self._counters)
        self._queues: dict[Place, deque[Turn]] = {}
        self._turns: dict[str, Turn] = {}
        self._workers = Tasks()
        self._recovered: set[str] = set()
        self._tried: set[str] = set()
        self._over: dict[str, asyncio.Event] = {}
        self._aside: list[Turn] = []
        self._is_draining = False

    @property
    def waiting(self) -> int:
        """Turns not answered yet."""
        return len(self._turns)

    def waiting_at(self, place: Place) -> int:
        """Messages at a place that are not answered yet, the one being worked on included."""
        here = [*self._queues.get(place, ()), *self._aside]
        return sum(one.kind is TurnKind.MESSAGE and one.place == place for one in here)

    @property
    def trouble(self) -> str:
        """What operators should know, "" for nothing."""
        if not self._aside:
            return ""
        return (
            f"{len(self._aside)} messages can neither be answered nor refused; they are taken up "
            "again every two minutes, and the log says why that fails (a turn could not be ended)"
        )

    def unfinished(self) -> list[Turn]:
        """The turns that run or wait, as they came."""
        return [*self._turns.values()]

    def find(self, turn_id: str) -> Turn | None:
        """A turn that runs or waits, None for one that is over."""
        return self._turns.get(turn_id)

    def behind(self, turn: Turn) -> Iterator[Turn]:
        """The turns that wait behind one that runs; to be looked at before anything else happens.

        One by one, as those who ask mostly look at the first: thousands may wait at a place.
        """
        return (one for one in self._queues.get(queue_of(turn), ()) if one is not turn)

    async def over(self, turn_id: str) -> None:
        """Wait until a turn neither runs nor waits."""
        if turn_id in self._turns:
            await self._over.setdefault(turn_id, asyncio.Event()).wait()

    def recover(self, turns: Sequence[Turn]) -> None:
        """Run turns that an earlier process left unfinished."""
        self._recovered |= {turn.turn_id for turn in turns}
        self.start(turns)

    def start(self, turns: Sequence[Turn]) -> None:
        """Run turns that are stored already."""
        for turn in turns:
            self._enqueue(turn)

    async def drain(self, within: float, matters: Callable[[Turn], bool]) -> None:
        """Begin no turn any more, and wait until those that run and matter have ended, `within`
        seconds at most."""
        self._is_draining = True
        # One whose last turn has ended is empty for a moment.
        heads = [queue[0] for queue in self._queues.values() if queue]
        running = [turn.turn_id for turn in heads if matters(turn)]
        waits = [asyncio.ensure_future(self.over(turn_id)) for turn_id in running]
        if waits:
            await asyncio.wait(waits, timeout=within)
            await ended(*waits)

    async def close(self) -> None:
        """Let go of the turns in flight; they are taken up again at the next start."""
        await self._workers.cancel()

    def _enqueue(self, turn: Turn) -> None:
        self._turns[turn.turn_id] = turn
        key = queue_of(turn)
        queue = self._queues.get(key)
        if queue is not None:
            queue.append(turn)
            self._queued(turn)
            return
        self._queues[key] = deque([turn])
        self._workers.start(self._work(key))

    async def _work(self, key: Place) -> None:
        queue = self._queues[key]
        while queue and not self._is_draining:
            turn = queue[0]
            begun = turn.turn_id in self._recovered or turn.turn_id in self._tried
            # Every line about it names it, whoever says it.
            with bound_contextvars(turn=turn.turn_id):
                done = await self._tries.run(turn, recovered=begun)
            queue.popleft()
            if not done:
                self._put_aside(turn)
                continue
            self._turns.pop(turn.turn_id, None)
            self.journeys.ended(turn.turn_id)
            if (over := self._over.pop(turn.turn_id, None)) is not None:
                over.set()
            self._tried.discard(turn.turn_id)
            self._recovered.discard(turn.turn_id)
            await self._end_quietly(turn)
        if not queue:
            del self._queues[key]

    async def _end_quietly(self, turn: Turn) -> None:
        try:
            await self._ended(turn)
        except Exception as error:
            # A queue goes on; what is left undone is done at the next start.
            log.error("a turn's end had no effect", turn=turn.turn_id, exc_info=error)

    def _put_aside(self, turn: Turn) -> None:
        """Take a turn that could not be ended up again later: it holds up nobody meanwhile."""
        self._tried.add(turn.turn_id)
        self._aside.append(turn)
        self._workers.start(self._take_up(turn))

    async def _take_up(self, turn: Turn) -> None:
        await asyncio.sleep(_ASIDE)
        self._aside.remove(turn)
        self._enqueue(turn)


@part
class Tries:
    """Runs turns by their kind's runner, and gives up those whose own fault it is that they fail.
    An outage is nobody's fault: it is waited for without end."""

    _runners: Mapping[TurnKind, Runner]
    _counters: Counter[str]

    async def run(self, turn: Turn, *, recovered: bool) -> bool:
        """Take a turn to its end; False where it cannot even be given up. `recovered`: an
        earlier process has begun it."""
        pauses, failures = iter(_PAUSES), 0
        while failures < TRIES and turn.status is not TurnStatus.DONE:
            try:
                await self._runners[turn.kind].run(turn, recovered=recovered)
            except Exception as error:
                if isinstance(error, StoreUnavailable):
                    # It waits as long as that takes, and no longer.
                    pauses = iter(_PAUSES)
                if not _waits(turn, error):
                    # One turn's fault must not stop the others.
                    failures += 1
                    log.error(
                        "a turn failed and is tried again",
                        turn=turn.turn_id,
                        attempt=failures,
                        exc_info=error,
                    )
            else:
                self._counters["turns_done"] += 1
                return True
            recovered = True
            await asyncio.sleep(next(pauses))
        return turn.status is TurnStatus.DONE or await self._give_up(turn)

    async def _give_up(self, turn: Turn) -> bool:
        self._counters["turns_given_up"] += 1
        while True:
            try:
                await self._runners[turn.kind].give_up(turn)
            except Exception as error:
                if not _waits(turn, error):
                    log.error("a turn could not be ended", turn=turn.turn_id, exc_info=error)
                    return False
                await asyncio.sleep(_PAUSES.longest)
            else:
                return True


def _waits(turn: Turn, error: Exception) -> bool:
    """Whether a turn fails for what is not its fault and passes; says so."""
    if isinstance(error, StoreUnavailable):
        log.error("a turn waits for the database", turn=turn.turn_id, reason=str(error))
        return True
    if not isinstance(error, HomeserverUnavailable):
        return False
    # At what the homeserver itself fails it may fail for ever. But what a person has decided is
    # not lost for that.
    if waits := not error.fails or is_answer(turn):
        log.error("a turn waits for the homeserver", turn=turn.turn_id, reason=str(error))
    return waits
