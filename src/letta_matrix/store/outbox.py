"""What we owe the homeserver: contents and txn ids frozen before the first try."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, cast

from sqlalchemy import ColumnElement, select

from letta_matrix.store.database import Database
from letta_matrix.store.rows import Statement, row_by, row_of
from letta_matrix.store.schema import outbox, turns
from letta_matrix.store.turns import Outcome, Turn, TurnStatus


class OutboxKind(StrEnum):
    MESSAGE = "message"  # a part of a reply, as it first appears
    FINAL = "final"  # the edit that completes a part
    NOTICE = "notice"  # a word about the turn, beside the reply
    OFFER = "offer"  # a notice whose 🔁 asks again
    APPROVAL = "approval"  # asks whether a tool may run
    TRACE = "trace"  # the tools in use
    UPDATE = "update"  # the edit that brings one of those two to its end


class Heard(NamedTuple):
    """Whose an event of ours is, by its marker."""

    turn_id: str
    txn_id: str


@dataclass(slots=True)
class OutboxEntry:
    """One event to be sent by `sender` into `room_id`; `event_id` once it is there."""

    txn_id: str
    turn_id: str
    seq: int
    kind: OutboxKind
    part: int
    room_id: str
    sender: str
    content: Mapping[str, object]
    event_id: str | None = None
    failure: str | None = None


_MOST_HEARD = 1000
_ENDS = (OutboxKind.FINAL, OutboxKind.NOTICE, OutboxKind.OFFER)


class Outbox:
    """The `outbox` table."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._heard: dict[str, Heard] = {}
        self.unsure_until = 0.0
        """What was sent for messages from before that time (Unix) may be unknown here."""

    async def freeze(
        self,
        entries: list[OutboxEntry],
        *,
        completes: Turn | None = None,
        outcome: Outcome = Outcome.ANSWERED,
        also: Sequence[Statement] = (),
    ) -> None:
        """Store entries before they are sent, and run the statements `also` together with it.

        With `completes`, in the same transaction the turn no longer needs its runtime and has
        its outcome.
        """
        statements: list[Statement] = [*(insert(entry) for entry in entries), *also]
        if completes is not None:
            replying = {"status": str(TurnStatus.REPLYING), "outcome": str(outcome)}
            statements.append((_TURN, {"of": completes.turn_id, **replying}))
        await self._database.execute(*statements)
        if completes is not None:
            completes.status = TurnStatus.REPLYING

    async def confirm(self, entry: OutboxEntry, event_id: str) -> None:
        """The homeserver has the event."""
        entry.event_id, entry.failure = event_id, None
        confirmed = _updated(entry, event_id=event_id, failure=None)
        await self._database.execute(confirmed, *_spoken(entry))

    async def fail(self, entry: OutboxEntry, reason: str) -> None:
        """The homeserver refused the event for good."""
        entry.failure = reason
        await self._database.execute(_updated(entry, failure=reason))

    async def of_turn(self, turn_id: str) -> list[OutboxEntry]:
        """A turn's entries in the order they are owed."""
        query = select(outbox).where(outbox.c.turn_id == turn_id).order_by(outbox.c.seq)
        return await self._database.records(OutboxEntry, query)

    async def offered_by(self, event_id: str) -> Turn | None:
        """The turn that the offer with this event id would ask again."""
        query = (
            select(turns)
            .join(outbox, outbox.c.turn_id == turns.c.turn_id)
            .where(self._is(event_id), outbox.c.kind == OutboxKind.OFFER)
        )
        return await self._database.record(Turn, query)

    def rewritten(self, entry: OutboxEntry, content: Mapping[str, object]) -> Statement:
        """The statement that notes what an entry's event says since an edit nobody stored."""
        return _updated(entry, content=dict(content))

    async def turn_of(self, event_id: str) -> Turn | None:
        """The turn that one of our events belongs to, the newest if it was edited into others."""
        query = (
            select(turns)
            .join(outbox, outbox.c.turn_id == turns.c.turn_id)
            .where(outbox.c.event_id == event_id)
            .order_by(turns.c.seq.desc())
        )
        found = await self._database.record(Turn, query)
        if found is None and (heard := self._heard.get(event_id)) is not None:
            same = turns.c.turn_id == heard.turn_id
            found = await self._database.record(Turn, select(turns).where(same))
        return found

    def _is(self, event_id: str) -> ColumnElement[bool]:
        """The entry that an event is of, also where it is heard of and not confirmed yet."""
        heard = self._heard.get(event_id)
        same = outbox.c.event_id == event_id
        return same if heard is None else same | (outbox.c.txn_id == heard.txn_id)

    def heard(self, event_id: str, turn_id: str, txn_id: str) -> None:
        """One of our events has come by, perhaps before the answer that names it is stored: what
        people do to it at once is about this turn, and this entry."""
        self._heard[event_id] = Heard(turn_id, txn_id)
        if len(self._heard) > _MOST_HEARD:
            del self._heard[next(iter(self._heard))]

    async def refused_in(self, room_id: str, sender: str, since: float) -> list[OutboxEntry]:
        """What the homeserver did not let one of our users send into a room, of turns whose
        messages were sent after `since` (Unix time), in the order it is owed."""
        query = (
            select(outbox)
            .join(turns, outbox.c.turn_id == turns.c.turn_id)
            .where(outbox.c.room_id == room_id, outbox.c.sender == sender)
            .where(outbox.c.failure.startswith("M_FORBIDDEN"), turns.c.sent_at > since)
            .where(turns.c.outcome.is_distinct_from(str(Outcome.WITHDRAWN)))
            .order_by(turns.c.seq, outbox.c.seq)
        )
        owed = await self._database.records(OutboxEntry, query)
        # Of a part that was sent again as a whole, that alone.
        last = {(one.turn_id, one.part): one for one in owed if one.kind is OutboxKind.MESSAGE}
        return [
            one for one in owed if one.kind in _ENDS or one is last.get((one.turn_id, one.part))
        ]

    async def reply_text(self, turn_id: str) -> str:
        """What a turn's reply says, as Markdown."""
        parts: dict[int, str] = {}
        for entry in await self.of_turn(turn_id):
            if entry.kind in (OutboxKind.MESSAGE, OutboxKind.FINAL):
                content = entry.content.get("m.new_content", entry.content)
                parts[entry.part] = str(cast("Mapping[str, object]", content).get("body", ""))
        return "\n\n".join(parts[part] for part in sorted(parts))

    async def said(self, turn_id: str) -> str:
        """What a turn that is over has said, with the notices beside it."""
        notices = [
            str(entry.content.get("body", ""))
            for entry in await self.of_turn(turn_id)
            if entry.kind in (OutboxKind.NOTICE, OutboxKind.OFFER)
        ]
        return "\n\n".join(filter(None, [await self.reply_text(turn_id), *notices]))


_NEW, _ENTRY, _TURN = outbox.insert(), row_by(outbox.c.txn_id), row_by(turns.c.turn_id)
_SILENT = _TURN.where(turns.c.spoke_at.is_(None))


def _updated(entry: OutboxEntry, **values: object) -> Statement:
    return _ENTRY, {"of": entry.txn_id, **values}


def _spoken(entry: OutboxEntry) -> list[Statement]:
    """The statement that notes when a reply's first words were there, if these are they."""
    if entry.kind is not OutboxKind.MESSAGE or entry.part:
        return []
    return [(_SILENT, {"of": entry.turn_id, "spoke_at": time.time()})]


def insert(entry: OutboxEntry) -> Statement:
    """The statement that stores an entry."""
    return _NEW, row_of(entry)
