"""Who is in a room, and what the room is called."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Generic, TypeVar

import structlog
from mautrix.errors import MatrixRequestError

from letta_matrix.conversations.horizons import Horizons
from letta_matrix.matrix.homeserver import Homeserver, HomeserverUnavailable

log = structlog.get_logger()

Told = TypeVar("Told")

_PATIENCE = 10.0
_MOST_ROOMS = 2_000


class Roster:
    """Rooms as the homeserver describes them; each is asked about once, until `forget`.
    `horizons` says from when on somebody may read them."""

    def __init__(self, homeserver: Homeserver) -> None:
        self._homeserver = homeserver
        self.horizons = Horizons(homeserver)
        self._members: _Known[Mapping[str, str]] = _Known()
        self._names: _Known[str] = _Known()
        self._levels: _Known[Mapping[str, Any]] = _Known()

    async def members(self, room_id: str, user_id: str) -> Mapping[str, str]:
        """Who has joined a room, by user id with their display names, as its member `user_id`
        sees it; empty if the homeserver does not tell."""
        intent = self._homeserver.acting_as(user_id)
        return await self._members.get(room_id, lambda: intent.joined_members(room_id)) or {}

    async def name(self, room_id: str, user_id: str) -> str:
        """A room's name, "" if it has none or the homeserver does not tell."""
        intent = self._homeserver.acting_as(user_id)
        return await self._names.get(room_id, lambda: intent.room_name(room_id)) or ""

    async def power_levels(self, room_id: str, user_id: str) -> Mapping[str, Any] | None:
        """The content of a room's `m.room.power_levels`, empty if it has none; None if the
        homeserver does not tell."""
        intent = self._homeserver.acting_as(user_id)
        return await self._levels.get(room_id, lambda: intent.state(room_id, "m.room.power_levels"))

    def forget_power(self, room_id: str) -> None:
        """The power levels of a room have changed: ask again next time."""
        self._levels.forget(room_id)

    def forget(self, room_id: str) -> None:
        """Members or name of a room, or who may read it, have changed: ask again next time."""
        self.horizons.forget(room_id)
        self._members.forget(room_id)
        self._names.forget(room_id)


class _Known(Generic[Told]):
    """One thing about each room, asked for by one request at a time."""

    def __init__(self) -> None:
        self._told: dict[str, Told] = {}
        self._asking: dict[str, asyncio.Task[Told]] = {}

    async def get(self, room_id: str, ask: Callable[[], Coroutine[Any, Any, Told]]) -> Told | None:
        if room_id in self._told:
            return self._told[room_id]
        asking = self._asking.get(room_id)
        if asking is None:
            asking = self._asking[room_id] = asyncio.create_task(self._ask(room_id, ask))
            # Whoever waits for it may have gone by then.
            asking.add_done_callback(lambda task: task.cancelled() or task.exception())
        try:
            return await asyncio.shield(asking)
        except (MatrixRequestError, HomeserverUnavailable, TimeoutError) as error:
            log.warning("a room could not be looked at", room=room_id, reason=str(error))
            return None

    def forget(self, room_id: str) -> None:
        self._told.pop(room_id, None)
        self._asking.pop(room_id, None)

    async def _ask(self, room_id: str, ask: Callable[[], Coroutine[Any, Any, Told]]) -> Told:
        me = asyncio.current_task()
        try:
            async with asyncio.timeout(_PATIENCE):
                told = await ask()
            # What was forgotten in the meantime may be out of date already.
            if self._asking.get(room_id) is me:
                self._remember(room_id, told)
            return told
        finally:
            if self._asking.get(room_id) is me:
                del self._asking[room_id]

    def _remember(self, room_id: str, told: Told) -> None:
        if len(self._told) >= _MOST_ROOMS:
            del self._told[next(iter(self._told))]
        self._told[room_id] = told
