"""What became of turns, as operators look at it: agents' messages alone, not what was a command or
an invitation."""

import asyncio
from collections.abc import Collection
from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import Connection, Select, func, select, union_all

from letta_matrix.store.database import Database
from letta_matrix.store.outbox import OutboxEntry
from letta_matrix.store.rows import record_of
from letta_matrix.store.schema import outbox, turns
from letta_matrix.store.texts import rows_of
from letta_matrix.store.turns import Outcome, Turn, TurnKind

_KINDS = (TurnKind.MESSAGE, TurnKind.SPEECH)
_MESSAGES = turns.c.kind.in_(_KINDS)
_MOST, _LATELY = 10_000, 1_000
"""Turns that a look back goes through, and one that comes every second: the newest."""
_TURNS, _FAILURES = 60, 10


@dataclass(frozen=True, slots=True)
class Ended:
    """How a turn ended, and its times (Unix times): when it came, its first words, its end."""

    outcome: str | None
    arrived_at: float | None
    spoke_at: float | None
    finished_at: float


@dataclass(frozen=True, slots=True)
class Lately:
    """The newest turns, and the newest that failed, with what was said beside each by its id, both
    newest first; the newest turn of each agent, by its id."""

    newest: list[Turn]
    failed: list[Turn]
    owed: dict[str, list[OutboxEntry]]
    last: dict[str, Turn]


class TurnHistory:
    """The `turns` table, as it is read."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._looking = asyncio.Lock()
        self._lately: tuple[int, set[str], Lately] | None = None

    async def lately(self, agent_ids: Collection[str]) -> Lately:
        """What is newest, of these agents. Many ask every second: as long as nothing is written
        there is one look for all of them."""
        async with self._looking:
            written, agents = self._database.commits.transactions, set(agent_ids)
            if self._lately is None or self._lately[:2] != (written, agents):
                found = await self._database.read(lambda db: _lately(db, agents))
                self._lately = written, agents, found
            return self._lately[2]

    async def ended_since(self, since: float) -> tuple[list[Ended], float]:
        """The messages that were done with since a time (Unix), as they arrived; and since when
        these are all: later than was asked for where there are very many."""

        def look(db: Connection) -> tuple[list[Ended], float]:
            begin = _begin(db, _MOST)
            columns = [turns.c[field.name] for field in fields(Ended)]
            ended = (turns.c.kind == TurnKind.MESSAGE) & (turns.c.finished_at >= since)
            query = select(*columns).where(ended, turns.c.seq > begin).order_by(turns.c.seq)
            found = [record_of(Ended, row) for row in db.execute(query).mappings()]
            ends = func.coalesce(turns.c.finished_at, turns.c.sent_at)
            left_out = select(ends).where(turns.c.seq <= begin).order_by(turns.c.seq.desc())
            last = db.execute(left_out.limit(1)).scalar()
            return found, max(since, last or since)

        return await self._database.read(look)


def last_of(agent_ids: Collection[str]) -> Select[Any]:
    """The query for the newest turns of agents, two or one each, oldest first."""
    # One look into the index for each agent and kind: there may be very many turns.
    ids = rows_of(sorted(agent_ids))
    newest = [
        select(
            select(func.max(turns.c.seq))
            .where(turns.c.agent_id == ids.c.value, turns.c.kind == kind)
            .scalar_subquery()
        ).select_from(ids)
        for kind in _KINDS
    ]
    found = turns.c.seq.in_(union_all(*newest))
    return select(turns).where(found).order_by(turns.c.seq)


def _begin(db: Connection, most: int) -> int:
    """The turn behind which the newest so many begin."""
    return (db.execute(select(func.max(turns.c.seq))).scalar() or 0) - most


def _lately(db: Connection, agent_ids: Collection[str]) -> Lately:
    def found(query: Select[Any]) -> list[Turn]:
        return [record_of(Turn, row) for row in db.execute(query).mappings()]

    newest_first = select(turns).where(_MESSAGES).order_by(turns.c.seq.desc())
    is_failed = (turns.c.outcome == Outcome.FAILED) & (turns.c.seq > _begin(db, _LATELY))
    failed = found(newest_first.where(is_failed).limit(_FAILURES))
    owed: dict[str, list[OutboxEntry]] = {one.turn_id: [] for one in failed}
    said = select(outbox).where(outbox.c.turn_id.in_(owed)).order_by(outbox.c.seq)
    for row in db.execute(said).mappings():
        owed[row["turn_id"]].append(record_of(OutboxEntry, row))
    return Lately(
        newest=found(newest_first.limit(_TURNS)),
        failed=failed,
        owed=owed,
        last={turn.agent_id: turn for turn in found(last_of(agent_ids))},
    )
