"""How far agents' own speech has been told, and the turns that tell it."""

from sqlalchemy import Connection, select

from letta_matrix.store.database import Database
from letta_matrix.store.inbox import turn_values
from letta_matrix.store.outbox import OutboxEntry, insert
from letta_matrix.store.rows import execute, replacing
from letta_matrix.store.schema import speech, turns
from letta_matrix.store.turns import Turn


class SpeechStore:
    """The `speech` table, held in memory and written through: call `load()` before use.

    For each agent it has the `last_run` that was looked at, and the runtime's cursor.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: dict[str, tuple[str, str]] = {}

    async def load(self) -> None:
        for row in await self._database.rows(select(speech)):
            self._known[row["agent_id"]] = row["last_run"], row["cursor"]

    def get(self, agent_id: str) -> tuple[str, str] | None:
        """The agent's last run that was looked at, and the cursor to go on from."""
        return self._known.get(agent_id)

    async def advance(
        self,
        agent_id: str,
        last_run: str,
        cursor: str,
        told: list[tuple[Turn, list[OutboxEntry]]],
    ) -> list[Turn]:
        """Store what is to be told together with the cursor after it; returns the new turns."""
        row = {"agent_id": agent_id, "last_run": last_run, "cursor": cursor}

        def store(connection: Connection) -> list[Turn]:
            for statement in replacing(speech, row):
                connection.execute(statement)
            return [turn for turn, owed in told if _insert(connection, turn, owed)]

        new = await self._database.write(store)
        self._known[agent_id] = last_run, cursor
        return new

    async def begin(self, agent_ids: list[str]) -> None:
        """Agents that have never run: whatever they say from now on is to be told."""
        rows = [{"agent_id": agent_id, "last_run": "", "cursor": ""} for agent_id in agent_ids]
        await self._database.write(lambda db: db.execute(speech.insert(), rows))
        self._known |= dict.fromkeys(agent_ids, ("", ""))


def _insert(connection: Connection, turn: Turn, owed: list[OutboxEntry]) -> bool:
    known = select(turns.c.seq).where(turns.c.turn_id == turn.turn_id)
    if connection.execute(known).first() is not None:
        return False
    connection.execute(turns.insert().values(turn_values(turn)))
    for entry in owed:
        execute(connection, insert(entry))
    return True
