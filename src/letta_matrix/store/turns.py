"""Turns: one message for one agent, from its arrival to its answer."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Executable, delete, func, select, update
from sqlalchemy.engine import RowMapping

from letta_matrix.store.database import Database
from letta_matrix.store.schema import conversations, outbox, turns


class TurnStatus(StrEnum):
    QUEUED = "queued"  # not yet given to the runtime
    RUNNING = "running"  # perhaps given to the runtime; followed again after a crash
    REPLYING = "replying"  # the reply is frozen in the outbox; the runtime is not needed any more
    DONE = "done"


class Outcome(StrEnum):
    ANSWERED = "answered"
    FAILED = "failed"
    EXPIRED = "expired"
    DROPPED = "dropped"


@dataclass(slots=True)
class Turn:
    """One message for one agent. `prompt` is None where the message has no text for it."""

    turn_id: str
    agent_id: str
    room_id: str
    event_id: str
    sender: str
    sent_at: float
    prompt: str | None
    status: TurnStatus = TurnStatus.QUEUED
    seq: int = 0
    conversation_id: str | None = None
    runtime_state: Mapping[str, object] | None = None
    asked: int = 0

    @property
    def message_id(self) -> str:
        """The runtime's idempotency key: the event id, marked when the turn was asked again."""
        return self.event_id if self.asked == 0 else f"{self.event_id}#{self.asked}"


class TurnStore:
    """The `turns` and `conversations` tables."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._conversations: dict[tuple[str, str], str] = {}

    async def unfinished(self) -> list[Turn]:
        """Every turn that still owes something, in arrival order."""
        query = select(turns).where(turns.c.status != TurnStatus.DONE).order_by(turns.c.seq)
        rows = await self._database.read(lambda db: db.execute(query).mappings().all())
        return [turn_of(row) for row in rows]

    async def rooms(self) -> list[str]:
        """Every room with a turn, the one with the newest first."""
        newest = func.max(turns.c.seq).desc()
        query = select(turns.c.room_id).group_by(turns.c.room_id).order_by(newest)
        return await self._database.read(lambda db: list(db.execute(query).scalars()))

    async def get(self, turn_id: str) -> Turn | None:
        query = select(turns).where(turns.c.turn_id == turn_id)
        row = await self._database.read(lambda db: db.execute(query).mappings().one_or_none())
        return turn_of(row) if row else None

    async def run(self, turn: Turn, state: Mapping[str, object]) -> None:
        """Record that the runtime may have been given the turn; `state` finds it again."""
        running = {"status": TurnStatus.RUNNING, "runtime_state": dict(state)}
        await self._database.execute(_update(turn, **running, conversation_id=turn.conversation_id))
        turn.status, turn.runtime_state = TurnStatus.RUNNING, dict(state)

    async def ask_again(self, turn: Turn, conversation_id: str | None) -> None:
        """Make the turn one that was never asked, in `conversation_id` if that is given."""
        asked, place = turn.asked + 1, conversation_id or turn.conversation_id
        statements: list[Executable] = [
            _update(
                turn,
                status=TurnStatus.QUEUED,
                runtime_state=None,
                asked=asked,
                conversation_id=place,
            )
        ]
        if conversation_id is not None:
            statements += _put_conversation(turn.agent_id, turn.room_id, conversation_id)
        await self._database.execute(*statements)
        if conversation_id is not None:
            self._conversations[turn.agent_id, turn.room_id] = conversation_id
        turn.status, turn.runtime_state = TurnStatus.QUEUED, None
        turn.asked, turn.conversation_id = asked, place

    async def finish(
        self, turn: Turn, outcome: Outcome | None, sent: Mapping[str, str] | None = None
    ) -> None:
        """The turn owes nothing more; `sent` maps outbox txn ids to the event ids they got.

        `outcome` None keeps the one that was stored when its reply was frozen.
        """
        confirmations = [
            update(outbox).where(outbox.c.txn_id == txn_id).values(event_id=event_id)
            for txn_id, event_id in (sent or {}).items()
        ]
        values = {"outcome": str(outcome)} if outcome is not None else {}
        done = {"status": TurnStatus.DONE, "runtime_state": None, "finished_at": time.time()}
        await self._database.execute(*confirmations, _update(turn, **done, **values))
        turn.status = TurnStatus.DONE

    async def conversation(self, agent_id: str, room_id: str) -> str | None:
        """The runtime's conversation for an agent in a room."""
        if (known := self._conversations.get((agent_id, room_id))) is not None:
            return known
        query = select(conversations.c.conversation_id).where(
            conversations.c.agent_id == agent_id, conversations.c.room_id == room_id
        )
        stored = await self._database.read(lambda db: db.execute(query).scalar_one_or_none())
        if stored is not None:
            self._conversations[agent_id, room_id] = stored
        return stored

    async def set_conversation(self, agent_id: str, room_id: str, conversation_id: str) -> None:
        await self._database.execute(*_put_conversation(agent_id, room_id, conversation_id))
        self._conversations[agent_id, room_id] = conversation_id

    async def forget_conversation(self, turn: Turn) -> None:
        """The runtime no longer has the turn's conversation, nor anything of the turn."""
        mine = (conversations.c.agent_id == turn.agent_id) & (
            conversations.c.room_id == turn.room_id
        )
        await self._database.execute(
            delete(conversations).where(mine),
            _update(turn, status=TurnStatus.QUEUED, runtime_state=None, conversation_id=None),
        )
        self._conversations.pop((turn.agent_id, turn.room_id), None)
        turn.status, turn.runtime_state, turn.conversation_id = TurnStatus.QUEUED, None, None


def _update(turn: Turn, **values: object) -> Executable:
    return update(turns).where(turns.c.turn_id == turn.turn_id).values(**values)


def _put_conversation(agent_id: str, room_id: str, conversation_id: str) -> list[Executable]:
    key = (conversations.c.agent_id == agent_id) & (conversations.c.room_id == room_id)
    values = {"agent_id": agent_id, "room_id": room_id, "conversation_id": conversation_id}
    new = conversations.insert().values(**values, created_at=time.time())
    return [delete(conversations).where(key), new]


def turn_of(row: RowMapping) -> Turn:
    """A Turn from a row of the `turns` table."""
    values: dict[str, Any] = {key: row[key] for key in Turn.__slots__}
    values["status"] = TurnStatus(row["status"])
    return Turn(**values)
