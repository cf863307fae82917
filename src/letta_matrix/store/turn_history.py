"""What became of turns, as operators look at it: agents' messages alone, not what was a command or
an invitation."""

from dataclasses import dataclass, fields

from sqlalchemy import func, select

from letta_matrix.store.database import Database
from letta_matrix.store.schema import turns
from letta_matrix.store.turns import Outcome, Turn, TurnKind

_MESSAGES = turns.c.kind.in_((TurnKind.MESSAGE, TurnKind.SPEECH))
_MOST, _LATELY = 10_000, 1_000
"""Turns that a look back goes through, and one that comes every second: the newest."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a turn ended, and its times (Unix times): when it came, its first words, its end."""

    outcome: str | None
    arrived_at: float | None
    spoke_at: float | None
    finished_at: float


class TurnHistory:
    """The `turns` table, as it is read."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def newest(self, limit: int) -> list[Turn]:
        """The newest, newest first."""
        query = select(turns).where(_MESSAGES).order_by(turns.c.seq.desc()).limit(limit)
        return await self._database.records(Turn, query)

    async def last_of_agents(self) -> dict[str, Turn]:
        """The newest of each agent, by its id."""
        last = select(func.max(turns.c.seq)).where(_MESSAGES).group_by(turns.c.agent_id)
        found = await self._database.records(Turn, select(turns).where(turns.c.seq.in_(last)))
        return {turn.agent_id: turn for turn in found}

    async def failed(self, limit: int) -> list[Turn]:
        """The newest that failed, newest first."""
        failed = (turns.c.outcome == Outcome.FAILED) & _MESSAGES
        query = select(turns).where(failed, turns.c.seq > await self._begin(_LATELY))
        return await self._database.records(Turn, query.order_by(turns.c.seq.desc()).limit(limit))

    async def ended_since(self, since: float) -> list[Ended]:
        """The messages that were done with since a time (Unix), as they arrived."""
        columns = [turns.c[field.name] for field in fields(Ended)]
        ended = (turns.c.kind == TurnKind.MESSAGE) & (turns.c.finished_at >= since)
        query = select(*columns).where(ended, turns.c.seq > await self._begin(_MOST))
        return await self._database.records(Ended, query.order_by(turns.c.seq))

    async def _begin(self, most: int) -> int:
        """The turn behind which the newest so many begin."""
        newest = await self._database.value(select(func.max(turns.c.seq)))
        return int(newest or 0) - most
