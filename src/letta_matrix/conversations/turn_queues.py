"""The turns of this process: those of one queue one by one, different queues side by side."""

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

import structlog

from letta_matrix.conversations.queues import is_answer, queue_of
from letta_matrix.matrix.homeserver import HomeserverUnavailable
from letta_matrix.store.database import StoreUnavailable
from letta_matrix.store.places import Place
from letta_matrix.store.turns import Turn, TurnKind, TurnStatus

log = structlog.get_logger()

_TRIES = 5

_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 10.0


class Runner(Protocol):
    """Takes turns of one kind to their end."""

    async def run(self, turn: Turn, *, recovered: bool) -> None:
        """Do it exactly once. `recovered`: an earlier try may have got somewhere."""
        ...

    async def give_up(self, turn: Turn) -> None:
        """End a turn that failed again and again, with a word to the person."""
        ...


class TurnQueues:
    """Runs turns by their kind's runner, with a worker for each queue. `queued` hears of turns
    that come to wait behind another, `ended` of those that an earlier process began."""

    def __init__(
        self,
        runners: Mapping[TurnKind, Runner],
        counters: Counter[str],
        queued: Callable[[Turn], None],
        ended: Callable[[Turn], Awaitable[None]],
    ) -> None:
        self._runners = runners
        self._counters = counters
        self._queued = queued
        self._ended = ended
        self._queues: dict[Place, deque[Turn]] = {}
        self._workers: set[asyncio.Task[None]] = set()
        self._recovered: set[str] = set()
        self._over: dict[str, asyncio.Event] = {}

    @property
    def waiting(self) -> int:
        """Turns not answered yet."""
        return sum(len(queue) for queue in self._queues.values())

    def unfinished(self) -> list[Turn]:
        """The turns that run or wait."""
        return [turn for queue in self._queues.values() for turn in queue]

    def behind(self, turn: Turn) -> list[Turn]:
        """The turns that wait behind one that runs."""
        return [one for one in self._queues.get(queue_of(turn), ()) if one is not turn]

    async def over(self, turn_id: str) -> None:
        """Wait until a turn neither runs nor waits."""
        if any(one.turn_id == turn_id for one in self.unfinished()):
            await self._over.setdefault(turn_id, asyncio.Event()).wait()

    def recover(self, turns: Sequence[Turn]) -> None:
        """Run turns that an earlier process left unfinished."""
        self._recovered |= {turn.turn_id for turn in turns}
        self.start(turns)

    def start(self, turns: Sequence[Turn]) -> None:
        """Run turns that are stored already."""
        for turn in turns:
            self._enqueue(turn)

    async def close(self) -> None:
        """Let go of the turns in flight; they are taken up again at the next start."""
        workers = list(self._workers)
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)

    def _enqueue(self, turn: Turn) -> None:
        key = queue_of(turn)
        queue = self._queues.get(key)
        if queue is not None:
            queue.append(turn)
            self._queued(turn)
            return
        self._queues[key] = deque([turn])
        worker = asyncio.create_task(self._work(key))
        self._workers.add(worker)
        worker.add_done_callback(self._workers.discard)

    async def _work(self, key: Place) -> None:
        queue = self._queues[key]
        while queue:
            turn = queue[0]
            await self._run(turn)
            queue.popleft()
            if (over := self._over.pop(turn.turn_id, None)) is not None:
                over.set()
            if turn.turn_id in self._recovered:
                await self._end_quietly(turn)
        del self._queues[key]

    async def _end_quietly(self, turn: Turn) -> None:
        try:
            await self._ended(turn)
        except Exception as error:
            # A queue goes on; what is left undone is done at the next start.
            log.error("a turn's end had no effect", turn=turn.turn_id, exc_info=error)

    async def _run(self, turn: Turn) -> None:
        pause, failures, recovered = _FIRST_PAUSE, 0, turn.turn_id in self._recovered
        while failures < _TRIES and turn.status is not TurnStatus.DONE:
            try:
                await self._runners[turn.kind].run(turn, recovered=recovered)
            except StoreUnavailable as error:
                # Not the turn's fault: it waits as long as it takes, and no longer.
                log.error("a turn waits for the database", turn=turn.turn_id, reason=str(error))
                pause = _FIRST_PAUSE
            except Exception as error:
                if isinstance(error, HomeserverUnavailable) and is_answer(turn):
                    # What a person has decided is not lost for an outage.
                    log.error("an answer waits for the homeserver", reason=str(error))
                else:
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
                return
            recovered = True
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)
        if turn.status is not TurnStatus.DONE:
            await self._give_up(turn)

    async def _give_up(self, turn: Turn) -> None:
        self._counters["turns_given_up"] += 1
        while True:
            try:
                await self._runners[turn.kind].give_up(turn)
            except StoreUnavailable as error:
                log.error("a turn waits for the database", turn=turn.turn_id, reason=str(error))
                await asyncio.sleep(_LONGEST_PAUSE)
            except Exception as error:
                log.error("a turn could not be ended", turn=turn.turn_id, exc_info=error)
                return
            else:
                return
