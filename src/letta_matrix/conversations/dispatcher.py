"""From the homeserver's transactions to turns."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import structlog

from letta_matrix.common import clock
from letta_matrix.common.parts import part
from letta_matrix.conversations.answers import Answers
from letta_matrix.conversations.audience import NOTHING, Refers
from letta_matrix.conversations.loops import Loops
from letta_matrix.conversations.new_turns import entry_for, sent_at
from letta_matrix.conversations.openings import Openings, keeping, kept_refers
from letta_matrix.conversations.routing import Router
from letta_matrix.conversations.turn_queues import Runner, TurnQueues
from letta_matrix.matrix.events import Event, RawEvent
from letta_matrix.store.amendments import Amended, Amendment
from letta_matrix.store.database import StoreUnavailable
from letta_matrix.store.inbox import Inbox, InboxEntry, InboxState
from letta_matrix.store.rooms import Rooms
from letta_matrix.store.turns import Outcome, Turn, TurnKind, TurnStatus, TurnStore

log = structlog.get_logger()

_KEEP = 30 * 86_400
_CHANGES_ROOM = ("m.room.member", "m.room.name", "m.room.history_visibility")
_PATIENCE = 2.0
"""Seconds that the homeserver is asked for what the messages of a transaction refer to; then they
are routed by what is known."""


@part
class Dispatcher:
    """Admits transactions and lets the turns they bring run in their `queues`: at each place one by
    one in order of arrival, different places side by side, commands beside them all.

    `takes` gives, for an event that answers something else than an agent, what to call when it
    is stored; `arrived` hears of every event once it is stored; `room_changed` hears of rooms
    whose members, name or readers are others now; `amended` of turns whose messages were edited or
    redacted, `queued` of turns that come to wait behind another; `refers` finds, until a time of
    the loop's clock, what an event refers to; `learn` is shown each event before it is routed,
    again where that had to wait.
    """

    _router: Router
    _answers: Answers
    _loops: Loops
    _inbox: Inbox
    _turns: TurnStore
    _rooms: Rooms
    runners: Mapping[TurnKind, Runner]
    takes: Callable[[RawEvent], Callable[[], None] | None]
    arrived: Callable[[RawEvent], None]
    room_changed: Callable[[str], None]
    amended: Callable[[Amended], None]
    queued: Callable[[Turn], None]
    refers: Callable[[RawEvent, float], Awaitable[Refers]]
    learn: Callable[[RawEvent], Awaitable[None]]

    def __post_init__(self) -> None:
        self._openings = Openings()
        self._admitting = asyncio.Lock()
        self._parked = set[str]()
        self.counters: Counter[str] = Counter()
        self.queues = TurnQueues(self.runners, self.counters, self.queued, self._ended)

    async def recover(self) -> None:
        """Take up every turn an earlier process left unfinished. Call before `admit`."""
        unfinished = await self._turns.unfinished()
        if unfinished:
            log.info("turns taken up again", turns=len(unfinished))
        for turn in unfinished:
            if turn.kind is TurnKind.MESSAGE:
                self._turns.conversations.expect(turn.place)
            if turn.kind is TurnKind.INVITE and turn.prompt in self._rooms.ours_in(turn.room_id):
                # It may be heard there already, and what was said before comes first.
                self._openings.begin(turn.room_id, turn.turn_id)
        self.queues.recover(unfinished)
        parked = await self._inbox.parked_rooms()
        self._parked.update(parked)
        for room_id in parked:
            if self._router.knows(room_id):
                await self.room_known(room_id)

    async def admit(
        self, txn_id: str, events: list[dict[str, Any]], *, missed: bool = False
    ) -> None:
        """Store a transaction with the turns it starts, then let them run; `missed` is one of
        events that were never pushed. Raises when it could not be stored; then nothing of it is."""
        arrived = clock.now()
        async with self._admitting:
            await self._admit(txn_id, events, arrived, missed=missed)
        for event in events:
            self.arrived(event)

    async def _admit(
        self, txn_id: str, events: list[dict[str, Any]], arrived: float, *, missed: bool
    ) -> None:
        taken: list[Callable[[], None]] = []
        sorted_out = list[InboxEntry | None]()
        until = clock.now() + _PATIENCE
        for event in events:
            # First: who is there decides whom the next message is for.
            await self._note(event)
            sorted_out.append(await self._sort(event, taken, until))
        entries = _each_turn_once([entry for entry in sorted_out if entry is not None])
        parked = (entry.room_id for entry in entries if entry.state is InboxState.PARKED)
        self._parked.update(parked)
        admitted = await self._inbox.admit(txn_id, entries, missed=missed)
        new = {turn.turn_id: turn for turn in admitted.turns}
        for amended in admitted.amended:
            self._amend(amended, new)
        for entry in entries:
            self._openings.noted(entry)
        for turn in admitted.turns:
            self.queues.journeys.admitted(turn, arrived)
        self.queues.start(admitted.turns)
        # Only now that the answers are stored: a transaction that comes again brings them again.
        for answer in taken:
            answer()

    async def missing(self, events: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Those of some events that `admit` would store, and never has."""
        others = [event for event in events if not self._router.is_own(event)]
        known = await self._inbox.known([str(event.get("event_id")) for event in others])
        return [event for event in others if event.get("event_id") not in known]

    async def room_known(
        self,
        room_id: str,
        history: Sequence[Mapping[str, Any]] = (),
        agent_id: str | None = None,
    ) -> None:
        """Look again at what arrived for a room before it was known to be an agent's. `history`
        is what was said there since the agent (`agent_id`, "" for the bot) was invited, oldest
        first: the homeserver does not push what came before it joined."""
        if agent_id is None and room_id in self._openings:
            # Whoever comes in tells first what was said before.
            return
        async with self._admitting:
            await self._look_again(room_id, history, agent_id)

    @asynccontextmanager
    async def opening(self, turn: Turn) -> AsyncGenerator[None]:
        """One of our users comes into a turn's room: what arrives meanwhile waits for what was said
        before, which `room_known` is told, and is taken up at the end. Of a try that fails it
        waits for the next, or for the turn's end."""
        self._openings.begin(turn.room_id, turn.turn_id)
        yield
        await self._opened(turn)

    async def _opened(self, turn: Turn) -> None:
        # Nothing that arrives may come between what has waited and the end of waiting.
        async with self._admitting:
            if self._openings.end(turn.room_id, turn.turn_id):
                await self._look_again(turn.room_id)

    async def _look_again(
        self, room_id: str, history: Sequence[Mapping[str, Any]] = (), agent_id: str | None = None
    ) -> None:
        if not history and room_id not in self._parked:
            # Of thousands of agents' rooms at a start the database is not to be asked.
            return
        until = clock.now() + _PATIENCE
        history = [keeping(event, await self.refers(event, until)) for event in history]
        meanwhile = self._openings.amendments(room_id)
        new = await self._inbox.unpark(room_id, self._again, history, agent_id, meanwhile)
        if self._router.knows(room_id):
            self._parked.discard(room_id)
        self.queues.start(new)

    async def _again(self, event: Mapping[str, Any], was_routed: bool) -> InboxEntry | None:
        if not was_routed:
            # What it tells of its room could not be understood before the room was known.
            await self.learn(event)
        return self._router.route(event, kept_refers(event))

    async def amend(self, amendment: Amendment) -> None:
        """Let an amendment take effect that did not come with the sender's own event."""
        self._amend(await self._inbox.amend(amendment), {})

    async def prune(self) -> None:
        """Forget, every hour, what has been settled for 30 days."""
        while True:
            await self._inbox.prune(time.time() - _KEEP)
            await asyncio.sleep(3600)

    async def _sort(
        self, event: RawEvent, taken: list[Callable[[], None]], until: float
    ) -> InboxEntry | None:
        if self._router.is_own(event):
            self.counters["events_own"] += 1
            if (agent_id := self._router.agent_of(event)) is not None:
                self._loops.heard(event, agent_id)
            self._answers.overhear(event)
            return None
        try:
            entry = await self._entry(event, taken, until)
        except StoreUnavailable:
            raise
        except Exception as error:
            # One odd event must not hold up the transaction, and with it everybody's messages.
            log.error("an event could not be read and is skipped", exc_info=error)
            self.counters["events_failed"] += 1
            return None
        self.counters["events_malformed" if entry is None else f"events_{entry.state}"] += 1
        return entry

    async def _entry(
        self, event: RawEvent, taken: list[Callable[[], None]], until: float
    ) -> InboxEntry | None:
        if self._router.portals.is_of_network(event.get("sender")):
            # Of who talks on other networks nothing counts but what the portal policy says.
            if (amending := self._router.amends(event)) is not None:
                return amending
            return self._put_off(self._router.route(event), NOTHING)
        if (answer := self.takes(event)) is not None:
            taken.append(answer)
            return entry_for(event, InboxState.ROUTED)
        entry = await self._answers.read(event, until)
        if (amending := self._router.amends(event)) is not None:
            amending.turns = entry.turns if entry is not None else []
            return amending
        if entry is not None:
            # An answer to an event of ours is none to what was said before.
            return entry
        refers = await self.refers(event, until)
        return self._put_off(self._router.route(event, refers), refers)

    def _put_off(self, entry: InboxEntry | None, refers: Refers) -> InboxEntry | None:
        if entry is not None and entry.turns:
            entry.turns = self._loops.allowed(entry.turns)
            entry.state = entry.state if entry.turns else InboxState.REFUSED
        return entry and self._openings.put_off(entry, refers)

    def _amend(self, amended: Amended, new: Mapping[str, Turn]) -> None:
        """Tell of an amendment, with the turns as this process has them."""
        turns: list[Turn] = []
        for turn in amended.turns:
            live = self.queues.find(turn.turn_id) or new.get(turn.turn_id)
            if live is not None:
                live.prompt, live.attachment = turn.prompt, turn.attachment
                live.amended_at = turn.amended_at
                status, _ = amended.before[turn.turn_id]
                if amended.amendment.withdrawn and status is TurnStatus.QUEUED:
                    live.outcome = str(Outcome.WITHDRAWN)
            turns.append(live or turn)
        self.amended(replace(amended, turns=turns))

    async def _note(self, event: RawEvent) -> None:
        """What an event changes besides the turns it starts."""
        room_id, user_id = event.get("room_id"), event.get("state_key")
        await self.learn(event)
        if event.get("type") not in _CHANGES_ROOM:
            return
        if not isinstance(room_id, str) or not isinstance(user_id, str):
            return
        membership = Event(event).membership
        if event.get("type") == "m.room.member" and not self._router.is_ours(user_id):
            await self._rooms.moved(room_id, user_id, is_here=membership == "join")
        self.room_changed(room_id)
        if membership in ("leave", "ban"):
            await self._rooms.left(room_id, user_id, sent_at(event))

    async def _ended(self, turn: Turn) -> None:
        """The room of an invite is open, or is not to be."""
        if turn.kind is TurnKind.INVITE:
            await self._opened(turn)


def _each_turn_once(entries: list[InboxEntry]) -> list[InboxEntry]:
    """An event can come twice, and two events of a transaction can take up the same offer."""
    first: dict[str, InboxEntry] = {}
    known: set[str] = set()
    for entry in entries:
        if first.setdefault(entry.event_id, entry) is entry:
            entry.turns = [turn for turn in entry.turns if turn.turn_id not in known]
            known |= {turn.turn_id for turn in entry.turns}
    return list(first.values())
