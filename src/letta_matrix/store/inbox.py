"""Events as they arrived from the homeserver, stored before they are acknowledged."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from sqlalchemy import Connection, delete, select, update

from letta_matrix.store.approvals import ApprovalStatus
from letta_matrix.store.budgets import Budget
from letta_matrix.store.database import Database
from letta_matrix.store.schema import approvals, inbox, outbox, transactions, turns
from letta_matrix.store.turns import Turn, TurnKind, TurnStatus

Event = Mapping[str, object]


class InboxState(StrEnum):
    PARKED = "parked"  # of a room not known yet; looked at again when it is
    ROUTED = "routed"
    REFUSED = "refused"  # its sender is over their budget
    IGNORED = "ignored"


@dataclass(slots=True)
class InboxEntry:
    """One event with what routing made of it; `turns` are what it starts."""

    event_id: str
    room_id: str
    event: Event
    state: InboxState
    turns: list[Turn] = field(default_factory=list[Turn])


class Inbox:
    """The `transactions` and `inbox` tables, and the turns that arrive through them, as far as
    the budget of who asks allows. `refused` counts those beyond, in this process."""

    def __init__(self, database: Database, budget: Budget | None = None) -> None:
        self._database = database
        self._budget = budget
        self.refused = 0

    async def admit(
        self, txn_id: str, entries: list[InboxEntry], *, missed: bool = False
    ) -> list[Turn]:
        """Store a transaction's events and turns, all or nothing. What was `missed` costs nobody
        anything: it would have been asked at its time.

        Returns the turns that are new, in order. Repeats are known by their event ids and never
        by `txn_id`: Synapse on SQLite counts those from 1 again whenever it has restarted.
        """
        if not entries:
            return []

        def store(connection: Connection) -> list[Turn]:
            now = time.time()
            connection.execute(transactions.insert().values(txn_id=txn_id, received_at=now))
            fresh = _fresh(connection, entries)
            if not missed:
                self._spend(connection, fresh, now)
            if fresh:
                connection.execute(inbox.insert(), [_inbox_values(entry, now) for entry in fresh])
            return _insert_turns(connection, [turn for entry in fresh for turn in entry.turns])

        return await self._database.write(store)

    async def known(self, event_ids: list[str]) -> set[str]:
        """Those of some events that have arrived."""
        if not event_ids:
            return set()
        query = select(inbox.c.event_id).where(inbox.c.event_id.in_(event_ids))
        return await self._database.read(lambda db: set(db.execute(query).scalars()))

    async def unpark(self, room_id: str, route: Callable[[Event], InboxEntry | None]) -> list[Turn]:
        """Route what was parked for a room; returns the new turns, in arrival order."""
        parked = (inbox.c.room_id == room_id) & (inbox.c.state == InboxState.PARKED)
        query = select(inbox.c.event).where(parked).order_by(inbox.c.seq)
        events = await self._database.read(lambda db: list(db.execute(query).scalars()))
        entries = [entry for event in events if (entry := route(event)) is not None]

        def store(connection: Connection) -> list[Turn]:
            still = select(inbox.c.event_id).where(parked)
            here = set(connection.execute(still).scalars())
            fresh = [entry for entry in entries if entry.event_id in here]
            self._spend(connection, fresh, time.time())
            for entry in fresh:
                row = update(inbox).where(inbox.c.event_id == entry.event_id)
                connection.execute(row.values(state=str(entry.state)))
            return _insert_turns(connection, [turn for entry in fresh for turn in entry.turns])

        return await self._database.write(store) if entries else []

    def _spend(self, connection: Connection, fresh: list[InboxEntry], now: float) -> None:
        if self._budget is None:
            return
        spending = self._budget.spend(connection, now)
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
        return await self._database.read(lambda db: list(db.execute(query).scalars()))

    async def prune(self, before: float) -> None:
        """Forget what arrived before `before` (a Unix time) and owes nothing."""
        # What was allowed for good holds until it is taken back.
        kept = select(approvals.c.turn_id).where(approvals.c.status == ApprovalStatus.ALWAYS)
        old_turns = (turns.c.status == TurnStatus.DONE) & (turns.c.finished_at < before)
        old_turns &= turns.c.turn_id.not_in(kept)
        old_turn_ids = select(turns.c.turn_id).where(old_turns)

        await self._database.execute(
            delete(approvals).where(approvals.c.turn_id.in_(old_turn_ids)),
            delete(outbox).where(outbox.c.turn_id.in_(old_turn_ids)),
            delete(turns).where(old_turns),
            # As long as its turn is there, so that the event is known when it comes again.
            delete(inbox).where(
                inbox.c.received_at < before, inbox.c.event_id.not_in(select(turns.c.event_id))
            ),
            delete(transactions).where(transactions.c.received_at < before),
        )


def _fresh(connection: Connection, entries: list[InboxEntry]) -> list[InboxEntry]:
    by_id = {entry.event_id: entry for entry in entries}
    if not by_id:
        return []
    query = select(inbox.c.event_id).where(inbox.c.event_id.in_(by_id))
    for event_id in connection.execute(query).scalars().all():
        del by_id[event_id]
    return list(by_id.values())


def _insert_turns(connection: Connection, new: list[Turn]) -> list[Turn]:
    if new:
        connection.execute(turns.insert(), [turn_values(turn) for turn in new])
    return new


def _inbox_values(entry: InboxEntry, now: float) -> dict[str, object]:
    return {
        "event_id": entry.event_id,
        "room_id": entry.room_id,
        "state": str(entry.state),
        "received_at": now,
        # Only what is looked at again needs its content kept.
        "event": entry.event if entry.state is InboxState.PARKED else {},
    }


def turn_values(turn: Turn) -> dict[str, object]:
    return {
        "turn_id": turn.turn_id,
        "agent_id": turn.agent_id,
        "room_id": turn.room_id,
        "event_id": turn.event_id,
        "sender": turn.sender,
        "sent_at": turn.sent_at,
        "prompt": turn.prompt,
        "status": str(turn.status),
        "kind": str(turn.kind),
        "thread_id": turn.thread_id,
        "reply_to": turn.reply_to,
        "attachment": dict(turn.attachment) if turn.attachment is not None else None,
        "hops": turn.hops,
    }
