"""Hears of what gives cause for doubt in what is remembered, and has it verified."""

import asyncio
from collections.abc import Collection, Mapping
from typing import Any

import structlog
from mautrix.errors import MatrixRequestError

from letta_matrix.agents.home import Home
from letta_matrix.agents.remembered import Remembered
from letta_matrix.common import clock
from letta_matrix.common.json_fields import mapping
from letta_matrix.common.parts import part
from letta_matrix.common.waiting import is_set
from letta_matrix.matrix.homeserver import HomeserverUnavailable
from letta_matrix.store.agents import AgentDirectory
from letta_matrix.store.database import StoreUnavailable
from letta_matrix.store.rooms import Rooms

log = structlog.get_logger()

_SETTLE = 3.0
"""Seconds from a cause to the look: many have one reason, and a purge takes its time."""
_SELDOM = 60.0
"""Seconds in which a room is not looked at again."""
_AGAIN = 60.0
"""Seconds after which agents that are not in their rooms are looked at again."""


@part
class Doubts:
    """Collects rooms in which something was refused, or that one of us left."""

    _bot_user_id: str
    _directory: AgentDirectory
    _rooms: Rooms
    _home: Home
    _remembered: Remembered

    def __post_init__(self) -> None:
        self._causes: set[str] = set()
        self._looked: dict[str, float] = {}
        self._some = asyncio.Event()

    def refused(self, room_id: str) -> None:
        """The homeserver refused somebody something in a room, or did not find it."""
        self._causes.add(room_id)
        self._some.set()

    def heard(self, event: Mapping[str, Any]) -> None:
        """Hear of an event that was stored: one of us may have left a room of its own, as when it
        is purged, or have come back to it."""
        who, room_id = event.get("state_key"), str(event.get("room_id"))
        agent = self._directory.by_room(room_id)
        whose = self._bot_user_id if room_id in self._home.rooms else agent and agent.user_id
        if event.get("type") == "m.room.member" and who == whose:
            there = mapping(event.get("content")).get("membership") == "join"
            if not there or (agent is not None and agent.agent_id in self._remembered.troubles):
                self.refused(room_id)

    async def run(self) -> None:
        """Look into them, for ever."""
        while True:
            if await is_set(self._some, _AGAIN):
                await asyncio.sleep(_SETTLE)
            self._some.clear()
            causes, self._causes = self._causes, set()
            try:
                await self._look(self._not_seen_lately(causes))
            except (MatrixRequestError, HomeserverUnavailable, StoreUnavailable) as error:
                log.warning("what is remembered cannot be verified now", reason=str(error))

    def _not_seen_lately(self, room_ids: Collection[str]) -> set[str]:
        now = clock.now()
        self._looked = {one: at for one, at in self._looked.items() if now - at < _SELDOM}
        new = set(room_ids).difference(self._looked)
        self._looked |= dict.fromkeys(new, now)
        return new

    async def _look(self, room_ids: Collection[str]) -> None:
        ours = {user_id for room_id in room_ids for user_id in self._rooms.ours_in(room_id)}
        if self._bot_user_id in ours or not self._home.rooms.isdisjoint(room_ids):
            await self._remembered.check()
        owners = [self._directory.by_room(room_id) for room_id in room_ids]
        guests = [self._directory.by_user(user_id) for user_id in ours]
        out = [self._directory.get(agent_id) for agent_id in self._remembered.troubles]
        found = {one.agent_id: one for one in (*owners, *guests, *out) if one is not None}
        await self._remembered.doubt(found.values())
