"""Rooms besides the agents' own: who of us is in them; and how agents behave in a room. Of all
rooms: which persons are there, as far as this process has learnt."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, replace

from sqlalchemy import delete, select, update

from letta_matrix.common.changes import Changes
from letta_matrix.store.database import Database
from letta_matrix.store.rows import record_of, replacing, row_of
from letta_matrix.store.schema import memberships, room_settings

_LOOKS = 5


@dataclass(frozen=True, slots=True)
class RoomSettings:
    """An agent's behaviour in a room; `tool_activity` None means as configured."""

    paused: bool = False
    tool_activity: bool | None = None


class Rooms:
    """The `memberships` and `room_settings` tables, held in memory and written through. Call
    `load()` before use. `changes` are told of who comes."""

    def __init__(self, database: Database, changes: Changes | None = None) -> None:
        self._database = database
        self._changes = changes or Changes()
        self._members: dict[str, dict[str, bool]] = {}
        self._since: dict[tuple[str, str], float] = {}
        self._settings: dict[tuple[str, str], RoomSettings] = {}
        self._people: dict[str, frozenset[str]] = {}
        self._moves: dict[str, int] = {}
        self._counting = asyncio.Lock()

    async def load(self) -> None:
        for row in await self._database.rows(select(memberships)):
            self._members.setdefault(row["room_id"], {})[row["user_id"]] = row["direct"]
            self._since[row["room_id"], row["user_id"]] = row["joined_at"]
        for row in await self._database.rows(select(room_settings)):
            self._settings[row["agent_id"], row["room_id"]] = record_of(RoomSettings, row)

    def ours_in(self, room_id: str) -> Mapping[str, bool]:
        """Our users that are in a room by invitation, each with whether no more than one person
        is there."""
        return self._members.get(room_id, {})

    def all(self) -> list[str]:
        """The rooms that any of our users was invited into."""
        return [room_id for room_id, users in self._members.items() if users]

    def people_in(self, room_id: str) -> frozenset[str] | None:
        """The persons that are in a room now; None where this process does not know."""
        return self._people.get(room_id)

    def moves(self, room_id: str) -> int:
        """How often this process has heard of somebody who came into a room or left it."""
        return self._moves.get(room_id, 0)

    async def learn(self, room_id: str, ask: Callable[[], Awaitable[Collection[str]]]) -> None:
        """Take what `ask` finds for the persons that are in a room; raises what it raises."""
        for tries_left in reversed(range(_LOOKS)):
            heard = self.moves(room_id)
            people = await ask()
            async with self._counting:
                # Of who came or went in the meantime the answer may not know.
                if self.moves(room_id) == heard or not tries_left:
                    await self._are_here(room_id, people)
                    return

    async def seen(self, room_id: str, people: Collection[str]) -> None:
        """These persons, and no others, are in a room now."""
        async with self._counting:
            await self._are_here(room_id, people)

    async def moved(self, room_id: str, user_id: str, *, is_here: bool) -> None:
        """A person came into a room or left it."""
        self._moves[room_id] = self.moves(room_id) + 1
        async with self._counting:
            people = self._people.get(room_id)
            if people is not None and is_here != (user_id in people):
                now = people | {user_id} if is_here else people - {user_id}
                await self._are_here(room_id, now)

    async def _are_here(self, room_id: str, people: Collection[str]) -> None:
        here, direct = self._members.get(room_id, {}), len(people) <= 1
        if any(known is not direct for known in here.values()):
            rows = update(memberships).where(memberships.c.room_id == room_id)
            await self._database.execute(rows.values(direct=direct))
            here.update(dict.fromkeys(here, direct))
        self._people[room_id] = frozenset(people)
        self._changes.tell()

    def rooms_of(self, user_id: str) -> list[str]:
        """The rooms one of our users was invited into, its own room apart."""
        return [room_id for room_id, users in self._members.items() if user_id in users]

    def since(self, room_id: str, user_id: str) -> float:
        """When one of our users was invited (Unix time): what was said before is not for it."""
        return self._since.get((room_id, user_id), 0.0)

    def began(self, room_id: str) -> float:
        """When the first of our users there was invited (Unix time), 0 where none was."""
        ours = self._members.get(room_id, ())
        return min((self.since(room_id, user_id) for user_id in ours), default=0.0)

    async def joined(self, room_id: str, user_id: str, *, direct: bool, since: float = 0.0) -> None:
        """One of our users is in a room now, invited at `since` (Unix time)."""
        values = {"room_id": room_id, "user_id": user_id, "direct": direct, "joined_at": since}
        await self._database.execute(*replacing(memberships, values))
        self._members.setdefault(room_id, {})[user_id] = direct
        self._since[room_id, user_id] = since
        async with self._counting:
            # Somebody may have come while this was stored.
            if (people := self._people.get(room_id)) is not None:
                await self._are_here(room_id, people)
        self._changes.tell()

    async def left(self, room_id: str, user_id: str, at: float = math.inf) -> None:
        """One of our users left a room `at` a time (Unix), unless it was invited again since."""
        if user_id in self._members.get(room_id, {}) and at >= self.since(room_id, user_id):
            here = (memberships.c.room_id == room_id) & (memberships.c.user_id == user_id)
            await self._database.execute(delete(memberships).where(here))
            self._members.get(room_id, {}).pop(user_id, None)
            self._since.pop((room_id, user_id), None)
            if not self._members.get(room_id):
                # Nobody of us hears from now on who comes and goes.
                self._people.pop(room_id, None)

    async def move_settings(self, agent_id: str, old: str, new: str) -> None:
        """An agent behaves in a room as in the one that it replaces, unless told otherwise."""
        settings = self.settings(agent_id, old)
        if (agent_id, new) not in self._settings and settings != RoomSettings():
            await self.change_settings(agent_id, new, **row_of(settings))

    def settings(self, agent_id: str, room_id: str) -> RoomSettings:
        return self._settings.get((agent_id, room_id), RoomSettings())

    async def change_settings(self, agent_id: str, room_id: str, **changes: bool | None) -> None:
        """Change `paused` or `tool_activity` of an agent in a room."""
        new = replace(self.settings(agent_id, room_id), **changes)
        values = {"agent_id": agent_id, "room_id": room_id, **row_of(new)}
        await self._database.execute(*replacing(room_settings, values))
        self._settings[agent_id, room_id] = new
