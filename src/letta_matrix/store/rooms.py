"""Rooms besides the agents' own: who of us is in them; and how agents behave in a room."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from sqlalchemy import Executable, delete, select, update

from letta_matrix.store.database import Database
from letta_matrix.store.schema import memberships, room_settings


@dataclass(frozen=True, slots=True)
class RoomSettings:
    """An agent's behaviour in a room; `tool_activity` None means as configured."""

    paused: bool = False
    tool_activity: bool | None = None


class Rooms:
    """The `memberships` and `room_settings` tables, held in memory and written through. Call
    `load()` before use."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._members: dict[str, dict[str, bool]] = {}
        self._since: dict[tuple[str, str], float] = {}
        self._settings: dict[tuple[str, str], RoomSettings] = {}

    async def load(self) -> None:
        rows = await self._database.read(lambda db: db.execute(select(memberships)).all())
        for row in rows:
            self._members.setdefault(row.room_id, {})[row.user_id] = row.direct
            self._since[row.room_id, row.user_id] = row.joined_at
        for row in await self._database.read(lambda db: db.execute(select(room_settings)).all()):
            settings = RoomSettings(row.paused, row.tool_activity)
            self._settings[row.agent_id, row.room_id] = settings

    def ours_in(self, room_id: str) -> Mapping[str, bool]:
        """Our users that were invited into a room, each with whether it was to talk to them
        alone."""
        return self._members.get(room_id, {})

    def rooms_of(self, user_id: str) -> list[str]:
        """The rooms one of our users was invited into, its own room apart."""
        return [room_id for room_id, users in self._members.items() if user_id in users]

    def since(self, room_id: str, user_id: str) -> float:
        """When one of our users was invited (Unix time): what was said before is not for it."""
        return self._since.get((room_id, user_id), 0.0)

    async def joined(self, room_id: str, user_id: str, *, direct: bool, since: float = 0.0) -> None:
        """One of our users is in a room now, invited at `since` (Unix time)."""
        values = {"room_id": room_id, "user_id": user_id, "direct": direct}
        new = memberships.insert().values(**values, joined_at=since)
        await self._database.execute(_membership(room_id, user_id), new)
        self._members.setdefault(room_id, {})[user_id] = direct
        self._since[room_id, user_id] = since

    async def not_alone(self, room_id: str, user_id: str) -> None:
        """One of our users that is in a room is not to be talked to alone there any more."""
        if user_id in self._members.get(room_id, {}):
            here = (memberships.c.room_id == room_id) & (memberships.c.user_id == user_id)
            await self._database.execute(update(memberships).where(here).values(direct=False))
            if user_id in self._members.get(room_id, {}):
                self._members[room_id][user_id] = False

    async def left(self, room_id: str, user_id: str, at: float = math.inf) -> None:
        """One of our users left a room `at` a time (Unix), unless it was invited again since."""
        if user_id in self._members.get(room_id, {}) and at >= self.since(room_id, user_id):
            await self._database.execute(_membership(room_id, user_id))
            self._members.get(room_id, {}).pop(user_id, None)
            self._since.pop((room_id, user_id), None)

    async def move_settings(self, agent_id: str, old: str, new: str) -> None:
        """An agent behaves in a room as in the one that it replaces, unless told otherwise."""
        settings = self.settings(agent_id, old)
        if (agent_id, new) not in self._settings and settings != RoomSettings():
            changes = {"paused": settings.paused, "tool_activity": settings.tool_activity}
            await self.change_settings(agent_id, new, **changes)

    def settings(self, agent_id: str, room_id: str) -> RoomSettings:
        return self._settings.get((agent_id, room_id), RoomSettings())

    async def change_settings(self, agent_id: str, room_id: str, **changes: bool | None) -> None:
        """Change `paused` or `tool_activity` of an agent in a room."""
        new = replace(self.settings(agent_id, room_id), **changes)
        here = (room_settings.c.agent_id == agent_id) & (room_settings.c.room_id == room_id)
        values = {"paused": new.paused, "tool_activity": new.tool_activity}
        row = room_settings.insert().values(agent_id=agent_id, room_id=room_id, **values)
        await self._database.execute(delete(room_settings).where(here), row)
        self._settings[agent_id, room_id] = new


def _membership(room_id: str, user_id: str) -> Executable:
    here = (memberships.c.room_id == room_id) & (memberships.c.user_id == user_id)
    return delete(memberships).where(here)
