"""What is old and settled is forgotten, the oldest first and a share at a time: nobody who wants
the database waits for all of it, and what is newer is not looked at."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from sqlalchemy import Column, ColumnElement, Connection, Delete, Table, delete, select

from letta_matrix.store.approvals import ApprovalStatus
from letta_matrix.store.database import Database
from letta_matrix.store.schema import approvals, audit, inbox, outbox, transactions, turns
from letta_matrix.store.turns import TurnStatus

_ROWS_AT_ONCE = 500

Forget = Callable[[ColumnElement[bool]], Sequence[Delete]]
"""What deletes those rows of a table that are within a condition."""


async def prune(database: Database, before: float) -> None:
    """Forget what arrived before `before` (a Unix time) and owes nothing. Raises
    StoreUnavailable."""
    await _go_through(database, turns, turns.c.arrived_at, before, partial(_of_turns, before))
    await _go_through(database, inbox, inbox.c.received_at, before, partial(_of_inbox, before))
    received = transactions.c.received_at
    await _go_through(database, transactions, received, before, partial(_all, received, before))


async def prune_audit(database: Database, before: float) -> None:
    """Forget the calls begun before `before` (a Unix time). Raises StoreUnavailable."""
    await _go_through(database, audit, audit.c.at, before, partial(_all, audit.c.at, before))


async def _go_through(
    database: Database, table: Table, at: Column[Any], before: float, forget: Forget
) -> None:
    """Go through the old rows of a table, whose `seq` grows with the time `at`."""
    seq, now, after = table.c.seq, time.time(), 0

    def share(connection: Connection) -> int | None:
        """How far it came, None at the end."""
        query = select(seq, at).where(seq > after).order_by(seq).limit(_ROWS_AT_ONCE)
        rows = connection.execute(query).all()
        if not rows:
            return None
        last = rows[-1][0]
        for statement in forget(seq.between(rows[0][0], last)):
            connection.execute(statement)
        # What a clock that was ahead has dated in the future says nothing of those behind it.
        is_new = any(when is not None and before <= when <= now for _, when in rows)
        return None if is_new or len(rows) < _ROWS_AT_ONCE else last

    while (reached := await database.write(share)) is not None:
        after = reached


def _of_turns(before: float, within: ColumnElement[bool]) -> Sequence[Delete]:
    # What was allowed for good holds until it is taken back.
    kept = select(approvals.c.turn_id).where(approvals.c.status == ApprovalStatus.ALWAYS)
    settled = within & (turns.c.status == TurnStatus.DONE) & (turns.c.finished_at < before)
    settled &= turns.c.turn_id.not_in(kept)
    theirs = select(turns.c.turn_id).where(settled)
    return (
        delete(approvals).where(approvals.c.turn_id.in_(theirs)),
        delete(outbox).where(outbox.c.turn_id.in_(theirs)),
        delete(turns).where(settled),
    )


def _of_inbox(before: float, within: ColumnElement[bool]) -> Sequence[Delete]:
    # As long as its turn is there, so that the event is known when it comes again.
    has_turn = select(turns.c.seq).where(turns.c.event_id == inbox.c.event_id).exists()
    return (delete(inbox).where(within, inbox.c.received_at < before, ~has_turn),)


def _all(at: Column[Any], before: float, within: ColumnElement[bool]) -> Sequence[Delete]:
    return (delete(at.table).where(within, at < before),)
