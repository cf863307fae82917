"""From the homeserver's transactions to one worker per conversation."""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Mapping
from typing import Any

import structlog

from letta_matrix.conversations.routing import Router, new_turn
from letta_matrix.conversations.turn_runner import TurnRunner
from letta_matrix.store.database import StoreUnavailable
from letta_matrix.store.inbox import Inbox, InboxEntry, InboxState
from letta_matrix.store.outbox import Outbox
from letta_matrix.store.turns import Turn, TurnStatus, TurnStore

log = structlog.get_logger()

_KEEP = 30 * 86_400
_TRIES = 5
_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 10.0


class Dispatcher:
    """Admits transactions and runs the turns they bring: within a conversation one by one in
    order of arrival, different conversations side by side."""

    def __init__(
        self, router: Router, inbox: Inbox, outbox: Outbox, turns: TurnStore, runner: TurnRunner
    ) -> None:
        self._router = router
        self._inbox = inbox
        self._outbox = outbox
        self._turns = turns
        self._runner = runner
        self._queues: dict[tuple[str, str], deque[Turn]] = {}
        self._workers: set[asyncio.Task[None]] = set()
        self._recovered: set[str] = set()
        self.counters: Counter[str] = Counter()

    @property
    def waiting(self) -> int:
        """Turns not answered yet."""
        return sum(len(queue) for queue in self._queues.values())

    async def recover(self) -> None:
        """Take up every turn an earlier process left unfinished. Call before `admit`."""
        unfinished = await self._turns.unfinished()
        self._recovered = {turn.turn_id for turn in unfinished}
        if unfinished:
            log.info("turns taken up again", turns=len(unfinished))
        for turn in unfinished:
            self._enqueue(turn)
        for room_id in await self._inbox.parked_rooms():
            if self._router.knows(room_id):
                await self.room_known(room_id)

    async def admit(self, txn_id: str, events: list[dict[str, Any]]) -> None:
        """Store a transaction with the turns it starts, then let them run. Raises when it could
        not be stored; then nothing of it is."""
        offers = await self._offers(events)
        entries = [entry for event in events if (entry := self._sort(event, offers)) is not None]
        for turn in await self._inbox.admit(txn_id, entries):
            self._enqueue(turn)
        # A room may have become known while its events were being parked.
        for room_id in {e.room_id for e in entries if e.state is InboxState.PARKED}:
            if self._router.knows(room_id):
                await self.room_known(room_id)

    async def room_known(self, room_id: str) -> None:
        """Look again at what arrived for a room before it was known to be an agent's."""
        for turn in await self._inbox.unpark(room_id, self._router.route):
            self._enqueue(turn)

    async def prune(self) -> None:
        """Forget, every hour, what has been settled for 30 days."""
        while True:
            await self._inbox.prune(time.time() - _KEEP)
            await asyncio.sleep(3600)

    async def close(self) -> None:
        """Let go of the turns in flight; they are taken up again at the next start."""
        workers = list(self._workers)
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        await self._runner.close()

    async def _offers(self, events: list[dict[str, Any]]) -> dict[str, Turn]:
        wishes = [wish for event in events if (wish := self._router.ask_again(event)) is not None]
        found = {wish.target: await self._outbox.offered_by(wish.target) for wish in wishes}
        return {target: turn for target, turn in found.items() if turn is not None}

    def _sort(self, event: Mapping[str, Any], offers: Mapping[str, Turn]) -> InboxEntry | None:
        if self._router.is_own(event):
            self.counters["events_own"] += 1
            return None
        try:
            entry = self._entry(event, offers)
        except Exception as error:
            # One odd event must not hold up the transaction, and with it everybody's messages.
            log.error("an event could not be read and is skipped", exc_info=error)
            self.counters["events_failed"] += 1
            return None
        self.counters["events_malformed" if entry is None else f"events_{entry.state}"] += 1
        return entry

    def _entry(self, event: Mapping[str, Any], offers: Mapping[str, Turn]) -> InboxEntry | None:
        wish = self._router.ask_again(event)
        if wish is None:
            return self._router.route(event)
        entry = InboxEntry(wish.event_id, wish.room_id, event, InboxState.IGNORED)
        offered = offers.get(wish.target)
        if offered is not None and offered.room_id == wish.room_id:
            entry.state = InboxState.ROUTED
            entry.turn = new_turn(event, offered.agent_id, offered.prompt)
        return entry

    def _enqueue(self, turn: Turn) -> None:
        key = (turn.agent_id, turn.room_id)
        queue = self._queues.get(key)
        if queue is not None:
            queue.append(turn)
            return
        self._queues[key] = deque([turn])
        worker = asyncio.create_task(self._work(key))
        self._workers.add(worker)
        worker.add_done_callback(self._workers.discard)

    async def _work(self, key: tuple[str, str]) -> None:
        queue = self._queues[key]
        while queue:
            await self._run(queue[0])
            queue.popleft()
        del self._queues[key]

    async def _run(self, turn: Turn) -> None:
        pause, failures, recovered = _FIRST_PAUSE, 0, turn.turn_id in self._recovered
        while failures < _TRIES and turn.status is not TurnStatus.DONE:
            try:
                await self._runner.run(turn, recovered=recovered)
            except StoreUnavailable as error:
                # Not the turn's fault: it waits as long as it takes.
                log.error("a turn waits for the database", turn=turn.turn_id, reason=str(error))
            except Exception as error:
                # One turn's fault must not stop the others.
                failures += 1
                log.error(
                    "a turn failed and is tried again",
                    turn=turn.turn_id,
                    attempt=failures,
                    exc_info=error,
                )
            else:
                self.counters["turns_done"] += 1
                return
            recovered = True
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)
        if turn.status is not TurnStatus.DONE:
            await self._give_up(turn)

    async def _give_up(self, turn: Turn) -> None:
        self.counters["turns_given_up"] += 1
        while True:
            try:
                await self._runner.give_up(turn)
            except StoreUnavailable as error:
                log.error("a turn waits for the database", turn=turn.turn_id, reason=str(error))
                await asyncio.sleep(_LONGEST_PAUSE)
            except Exception as error:
                log.error("a turn could not be ended", turn=turn.turn_id, exc_info=error)
                return
            else:
                return
