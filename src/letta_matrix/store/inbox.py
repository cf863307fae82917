"""Events as they arrived from the homeserver, stored before they are acknowledged."""

import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, bindparam, select, update

from letta_matrix.store.amendments import Amended, Amendment, amend
from letta_matrix.store.budgets import Budget, Spending
from letta_matrix.store.database import Database
from letta_matrix.store.pruning import prune
from letta_matrix.store.rows import row_by, row_of
from letta_matrix.store.schema import inbox, transactions, turns
from letta_matrix.store.turns import Outcome, Turn, TurnKind, joined_to

Event = Mapping[str, object]

_LATER = (
    *("seq", "conversation_id", "runtime_state", "asked", "outcome", "joined_to"),
    *("given_at", "spoke_at", "finished_at"),
)


class InboxState(StrEnum):
    PARKED = "parked"  # of a room not known yet; looked at again when it is
    ROUTED = "routed"
    REFUSED = "refused"  # its sender is over their budget
    IGNORED = "ignored"


@dataclass(slots=True)
class InboxEntry:
    """One event of a thread ("": of none) with what routing made of it; `turns` are what it
    starts. Of an edit `adds` are those it starts unless its message has: of whom it newly
    addresses."""

    event_id: str
    room_id: str
    event: Event
    state: InboxState
    turns: list[Turn] = field(default_factory=list[Turn])
    amends: Amendment | None = None
    adds: list[Turn] = field(default_factory=list[Turn])
    thread_id: str = ""


@dataclass(frozen=True, slots=True)
class Admitted:
    """What came of a transaction: new turns in order, and what was said anew of older ones."""

    turns: list[Turn] = field(default_factory=list[Turn])
    amended: list[Amended] = field(default_factory=list[Amended])


class Inbox:
    """The `transactions` and `inbox` tables, and the turns that arrive through them, as far as
    the budget of who asks allows. `refused` counts those beyond, in this process; `there` tells
    what time it is where messages are dated."""

    def __init__(
        self,
        database: Database,
        budget: Budget | None = None,
        there: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._budget = budget
        self._there = there
        self.refused = 0

    async def admit(
        self, txn_id: str, entries: list[InboxEntry], *, missed: bool = False
    ) -> Admitted:
        """Store a transaction's events and turns, all or nothing. What was `missed` costs nobody
        anything: it would have been asked at its time.

        Repeats are known by their event ids and never by `txn_id`: Synapse on SQLite counts those
        from 1 again whenever it has restarted.
        """
        if not entries:
            return Admitted()

        def store(connection: Connection) -> Admitted:
            now = time.time()
            connection.execute(_RECEIVED, {"txn_id": txn_id, "received_at": now})
            fresh = _fresh(connection, entries)
            return self._store(connection, fresh, now, missed=missed)

        return await self._database.write(store)

    async def amend(self, amendment: Amendment) -> Amended:
        """Let what became of a message take effect on its turns."""
        return await self._database.write(lambda db: amend(db, amendment))

    def _store(
        self, connection: Connection, fresh: list[InboxEntry], now: float, *, missed: bool
    ) -> Admitted:
        if fresh:
            connection.execute(_ARRIVED, [_inbox_values(entry, now) for entry in fresh])
        coming = {turn.turn_id for entry in fresh for turn in entry.turns}
        for entry in fresh:
            if entry.adds:
                # Of a message that comes with its edit, its own turns are still on their way.
                added = [one for one in _added(connection, entry) if one.turn_id not in coming]
                coming |= {one.turn_id for one in added}
                entry.turns = [*entry.turns, *added]
            if any(turn.kind is TurnKind.UNDELIVERED for turn in entry.turns):
                # Bridges tell the same of one message again and again.
                entry.turns = _not_started(connection, entry.turns)
        new = self._start(connection, fresh, missed=missed)
        amended: list[Amended] = []
        for entry in fresh:
            if entry.amends is not None:
                amended.append(amend(connection, entry.amends))
                _amend_known(connection, entry.amends)
        for turn in new:
            if turn.revises is not None:
                _say_newest(connection, turn)
        return Admitted(new, [one for one in amended if one.turns])

    async def known(self, event_ids: list[str]) -> set[str]:
        """Those of some events that have arrived."""
        if not event_ids:
            return set()
        query = select(inbox.c.event_id).where(inbox.c.event_id.in_(event_ids))
        return set(await self._database.values(query))

    async def edited_by(self, event_id: str) -> str:
        """The message that an event has edited, "" for none."""
        query = select(inbox.c.event).where(inbox.c.event_id == event_id)
        known: Event = await self._database.value(query) or {}
        return str(known.get("edits", ""))

    async def unpark(
        self,
        room_id: str,
        route: Callable[[Event, bool], Awaitable[InboxEntry | None]],
        history: Sequence[Event] = (),
        agent_id: str | None = None,
        amendments: Sequence[Amendment] = (),
    ) -> list[Turn]:
        """Route what was parked for a room, and tell `route` whether it was routed before; returns
        the new turns, in order, as the `amendments` that came meanwhile have changed them.

        `history` is what was said there since one of our users was invited, oldest first, which
        the homeserver may never have pushed; of what came and was routed before, only the turns
        of this user's agent ("" for the bot) are new.
        """
        parked = (inbox.c.room_id == room_id) & (inbox.c.state == InboxState.PARKED)
        query = select(inbox.c.event).where(parked).order_by(inbox.c.seq)
        told = {str(event.get("event_id")): event for event in history}
        routed = await self.known(list(told))
        for event in await self._database.values(query):
            event_id = str(event.get("event_id"))
            told.setdefault(event_id, event)
            routed.discard(event_id)
        looked_at = [await route(event, event_id in routed) for event_id, event in told.items()]
        entries = [entry for entry in looked_at if entry is not None]

        def store(connection: Connection) -> list[Turn]:
            now = time.time()
            waiting = set(connection.execute(select(inbox.c.event_id).where(parked)).scalars())
            unknown = {entry.event_id for entry in _fresh(connection, entries)}
            for entry in entries:
                if entry.event_id in unknown:
                    connection.execute(_ARRIVED, _inbox_values(entry, now))
                elif entry.event_id not in waiting:
                    entry.turns = [one for one in entry.turns if one.agent_id == agent_id]
                entry.turns = _not_started(connection, entry.turns)
            new = self._start(connection, entries, waiting)
            for amendment in amendments:
                _say_amended(new, amend(connection, amendment))
            return new

        return await self._database.write(store) if entries else []

    def _start(
        self,
        connection: Connection,
        entries: list[InboxEntry],
        waiting: Collection[str] = (),
        *,
        missed: bool = False,
    ) -> list[Turn]:
        """The new turns that are within budgets, stored; the entries are, and wait no more."""
        if not missed:
            self._spend(connection, entries)
        for entry in entries:
            if entry.event_id in waiting or entry.state is InboxState.REFUSED:
                _set_state(connection, entry)
        new = [turn for entry in entries for turn in entry.turns]
        if new:
            connection.execute(_BEGUN, [turn_values(turn) for turn in new])
        return new

    def _spend(self, connection: Connection, fresh: list[InboxEntry]) -> None:
        if self._budget is None:
            return
        spending = Spending(self._budget, connection, self._there())
        for entry in fresh:
            wanted = len(entry.turns)
            entry.turns = spending.allowed(entry.turns)
            taken = sum(turn.kind is not TurnKind.REFUSED for turn in entry.turns)
            self.refused += wanted - taken
            if wanted and not entry.turns:
                entry.state = InboxState.REFUSED

    async def parked_rooms(self) -> list[str]:
        """The rooms something is parked for."""
        query = select(inbox.c.room_id).where(inbox.c.state == InboxState.PARKED).distinct()
        return await self._database.values(query)

    async def prune(self, before: float) -> None:
        """Forget what arrived before `before` (a Unix time) and owes nothing."""
        await prune(self._database, before)


# Made once: every message comes this way.
_RECEIVED, _ARRIVED, _BEGUN = transactions.insert(), inbox.insert(), turns.insert()
_KNOWN = select(inbox.c.event_id).where(inbox.c.event_id.in_(bindparam("ids", expanding=True)))
_EVENT = row_by(inbox.c.event_id)


def _fresh(connection: Connection, entries: list[InboxEntry]) -> list[InboxEntry]:
    by_id = {entry.event_id: entry for entry in entries}
    if not by_id:
        return []
    for event_id in connection.execute(_KNOWN, {"ids": list(by_id)}).scalars().all():
        del by_id[event_id]
    return list(by_id.values())


def _added(connection: Connection, entry: InboxEntry) -> list[Turn]:
    """The turns that an edit adds: its message must have come from the same sender, and started
    none with these agents."""
    target = entry.adds[0].event_id
    query = select(inbox.c.event, inbox.c.state, inbox.c.room_id).where(inbox.c.event_id == target)
    row = connection.execute(query).one_or_none()
    # What waits for its room is routed as it was corrected.
    if row is None or row.state == InboxState.PARKED:
        return []
    message = row.event
    if message.get("sender") != entry.adds[0].sender or row.room_id != entry.room_id:
        return []
    new = _not_started(connection, entry.adds)
    for turn in new:
        # An edit does not tell where its message stands.
        turn.thread_id = message.get("thread") or turn.thread_id
    return new


def _not_started(connection: Connection, new: list[Turn]) -> list[Turn]:
    if not new:
        return []
    started = select(turns.c.turn_id).where(turns.c.turn_id.in_([turn.turn_id for turn in new]))
    known = set(connection.execute(started).scalars())
    return [turn for turn in new if turn.turn_id not in known]


def _say_amended(new: list[Turn], amended: Amended) -> None:
    changed = {turn.turn_id: turn for turn in amended.turns}
    for turn in new:
        if (newest := changed.get(turn.turn_id)) is not None:
            turn.prompt, turn.attachment = newest.prompt, newest.attachment
            turn.amended_at = newest.amended_at
            if amended.amendment.withdrawn:
                turn.outcome = str(Outcome.WITHDRAWN)


def _say_newest(connection: Connection, turn: Turn) -> None:
    """What is asked anew says what its message says by now: that may have come just before."""
    query = select(turns.c.prompt, turns.c.attachment).where(turns.c.turn_id == turn.revises)
    turn.prompt, turn.attachment = connection.execute(query).one()
    together = joined_to(connection, turn)
    if all(one.prompt is None and one.attachment is None for one in (turn, *together)):
        turn.outcome = str(Outcome.WITHDRAWN)
    newest = {key: turn_values(turn)[key] for key in ("prompt", "attachment")}
    row = update(turns).where(turns.c.turn_id == turn.turn_id)
    connection.execute(row.values(**newest, outcome=turn.outcome))


def _amend_known(connection: Connection, amendment: Amendment) -> None:
    """What waits for its room to be known says the newest; what was redacted nothing any more,
    whatever is said of it later."""
    here = (inbox.c.event_id == amendment.event_id) & (inbox.c.room_id == amendment.room_id)
    if not amendment.withdrawn:
        here &= inbox.c.state == InboxState.PARKED
    row = connection.execute(select(inbox.c.event, inbox.c.state).where(here)).one_or_none()
    if row is None or row.event.get("sender") != amendment.sender:
        return
    message: dict[str, Any] = row.event
    if amendment.withdrawn:
        state = InboxState.IGNORED if row.state == InboxState.PARKED else row.state
        gone = {"event": {"edits": message.get("edits", "")}, "state": str(state)}
        connection.execute(update(inbox).where(here).values(**gone))
        return
    # What it answers or belongs to does not change (spec: Event replacements).
    kept = {key: message["content"][key] for key in ("m.relates_to",) if key in message["content"]}
    content = {**(amendment.content or {}), **kept}
    event = {**message, "content": content}
    connection.execute(update(inbox).where(here).values(event=event))


def _set_state(connection: Connection, entry: InboxEntry) -> None:
    values: dict[str, object] = {"of": entry.event_id, "state": str(entry.state)}
    if entry.state is not InboxState.PARKED:
        values["event"] = _known(entry)
    connection.execute(_EVENT, values)


def _inbox_values(entry: InboxEntry, now: float) -> dict[str, object]:
    is_parked = entry.state is InboxState.PARKED
    return {
        "event_id": entry.event_id,
        "room_id": entry.room_id,
        "state": str(entry.state),
        "received_at": now,
        "event": entry.event if is_parked else _known(entry),
    }


def _known(entry: InboxEntry) -> dict[str, object]:
    """What is kept of an event that is not looked at again: who may edit it, and what it edits."""
    known: dict[str, object] = {"sender": entry.event.get("sender"), "thread": entry.thread_id}
    if entry.amends is not None and not entry.amends.withdrawn:
        known["edits"] = entry.amends.event_id
    return known


def turn_values(turn: Turn) -> dict[str, object]:
    """A new turn's row: what only comes of it is left to the table."""
    return row_of(turn, *_LATER)
