"""Agents as the bridge knows them: identity, room, and what the homeserver already has."""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Self

from sqlalchemy import select, update

from letta_matrix.store.database import Database
from letta_matrix.store.rows import row_of
from letta_matrix.store.schema import agents


class AgentStatus(StrEnum):
    ACTIVE = "active"
    REMOVED = "removed"


ENCRYPTED = "encrypted"
"""The key in `Agent.applied` that tells that its room is encrypted."""


@dataclass(slots=True)
class Agent:
    """One agent. `applied` is what has been written to the homeserver, by step name.

    An agent of the directory is changed through `AgentDirectory.change` only, which puts a new
    object in its place.
    """

    agent_id: str
    runtime: str
    name: str
    user_id: str
    description: str = ""
    room_id: str | None = None
    status: AgentStatus = AgentStatus.ACTIVE
    applied: Mapping[str, object] = field(default_factory=dict[str, object])
    created_at: float = field(default_factory=time.time)


WANTING = "wanting"
"""The key of `Agent.applied`, and of the bridge's own `meta`, for what is wanting, by step."""
DOUBTED = "doubted"
"""In `Agent.applied`: what is remembered of the agent is to be checked."""
ROOM_BEFORE = "room_before"
"""The room that the agent had before the one that it is to get; "" for none that is known."""
NEW_ROOM = "new_room"
"""It is to be another room than the one that the alias leads to: which that is, "" before it was
looked up."""
LOGINS_ENDED = "logins_ended"
"""Nobody has a password of the account that was there before the bridge."""
ANSWERED_UNTIL = "answered_until"
"""The time (Unix) in its room up to which the original integration has answered, in an adopted
room: what was sent until then is not answered again."""

_ABOUT_THE_AGENT = ("announced", "announcements")
_ABOUT_THE_ACCOUNT = (
    *("registered", "sole", "displayname", "picture", "avatar", "password", LOGINS_ENDED),
    *_ABOUT_THE_AGENT,
)
"""What of `Agent.applied` outlives a room: all else is about that."""


def in_room(agent: Agent, room_id: str | None) -> Agent:
    """The agent with another room of its own, about which nothing is known yet, or with none."""
    applied = {key: value for key, value in agent.applied.items() if key in _ABOUT_THE_ACCOUNT}
    return replace(agent, room_id=room_id, applied=applied)


def without_account(agent: Agent) -> Agent:
    """The agent as if nothing had been written of its account."""
    lost = set(_ABOUT_THE_ACCOUNT) - set(_ABOUT_THE_AGENT)
    return marked(agent, **dict.fromkeys(lost))


def marked(agent: Agent, **marks: object) -> Agent:
    """The agent with these marks in `applied`; None takes one away."""
    applied = {**agent.applied, **marks}
    return replace(agent, applied={key: mark for key, mark in applied.items() if mark is not None})


def homeless(agent: Agent, **marks: object) -> Agent:
    """The agent without the room that it had, which is kept in mind, and with these `marks`."""
    before = agent.room_id or agent.applied.get(ROOM_BEFORE, "")
    return marked(in_room(agent, None), **{ROOM_BEFORE: before, **marks})


def meant(ref: str, agents: Iterable[Agent]) -> list[Agent]:
    """Those of `agents` with this id or user id, else with this name; capitals count only where it
    matters."""
    known = list(agents)
    for fits in (
        [one for one in known if ref in (one.agent_id, one.user_id)],
        [one for one in known if one.name == ref],
        [one for one in known if one.name.casefold() == ref.casefold()],
    ):
        if fits:
            return fits
    return []


class AgentDirectory:
    """The `agents` table, held in memory and written through. Call `load()` before use."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._agents: dict[str, Agent] = {}
        self._by_room: dict[str, Agent] = {}
        self._by_user: dict[str, Agent] = {}
        self._changing = asyncio.Lock()

    async def load(self) -> Self:
        query = select(agents).order_by(agents.c.created_at)
        for agent in await self._database.records(Agent, query):
            self._index(agent)
        return self

    def all(self) -> list[Agent]:
        return list(self._agents.values())

    def active(self) -> list[Agent]:
        """Those that were not removed."""
        return [one for one in self._agents.values() if one.status is AgentStatus.ACTIVE]

    def get(self, agent_id: str) -> Agent | None:
        return self._agents.get(agent_id)

    def now(self, agent_id: str) -> Agent:
        """An agent as it is now: each change makes another one. Raises LookupError where there is
        none."""
        agent = self.get(agent_id)
        if agent is None:
            raise LookupError(f"{agent_id} has no row")
        return agent

    def by_room(self, room_id: str) -> Agent | None:
        return self._by_room.get(room_id)

    def by_user(self, user_id: str) -> Agent | None:
        return self._by_user.get(user_id)

    async def reserve(self, new: list[Agent]) -> None:
        """Insert rows before anything is created on the homeserver."""
        if not new:
            return
        await self._database.execute(*(agents.insert().values(row_of(agent)) for agent in new))
        for agent in new:
            self._index(agent)

    async def change(
        self, agent_ids: Iterable[str], edited: Callable[[Agent], Agent]
    ) -> list[Agent]:
        """Store an edited copy of each agent, then show it; returns the copies.

        If they cannot be stored, nothing has changed here either. Raises StoreUnavailable.
        """
        # One after the other, so that each edits what the one before it has stored.
        async with self._changing:
            copies = [edited(self._agents[agent_id]) for agent_id in agent_ids]
            await self._database.execute(
                *(
                    update(agents).where(agents.c.agent_id == one.agent_id).values(row_of(one))
                    for one in copies
                )
            )
            for one in copies:
                self._index(one)
        return copies

    def _index(self, agent: Agent) -> None:
        before = self._agents.get(agent.agent_id)
        if before is not None and before.room_id not in (None, agent.room_id):
            self._by_room.pop(str(before.room_id), None)
        if before is not None and before.user_id != agent.user_id:
            self._by_user.pop(before.user_id, None)
        self._agents[agent.agent_id] = agent
        self._by_user[agent.user_id] = agent
        if agent.room_id is not None:
            self._by_room[agent.room_id] = agent
