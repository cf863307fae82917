"""Who is in a room, what it is called, and from when on somebody may read it."""

import asyncio
import math
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Generic, TypeVar

import structlog
from mautrix.errors import MatrixRequestError

from letta_matrix.common.json_fields import mapping
from letta_matrix.conversations.new_turns import sent_at
from letta_matrix.matrix.events import Event
from letta_matrix.matrix.homeserver import Homeserver, HomeserverUnavailable
from letta_matrix.matrix.intent import Intent

log = structlog.get_logger()

Told = TypeVar("Told")

_PATIENCE = 10.0
_MOST_ROOMS = 2_000
_STEPS = 20
"""How many changes of a name and the like are looked behind for the arrival itself."""


class Roster:
    """Rooms as the homeserver describes them; each is asked about once, until `forget`."""

    def __init__(self, homeserver: Homeserver) -> None:
        self._homeserver = homeserver
        self._members: _Known[Mapping[str, str]] = _Known()
        self._names: _Known[str] = _Known()
        self._levels: _Known[Mapping[str, Any]] = _Known()
        self._horizons: _Known[float] = _Known()

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

    async def readable_since(self, room_id: str, person: str, user_id: str) -> float:
        """From when on (Unix time) a person may read a room, as its member `user_id` sees it: 0.0
        where they may read all of it, infinity where they are not in it or nobody can tell. What
        came before is not told to them (spec: Room history visibility)."""
        intent = self._homeserver.acting_as(user_id)
        since = await self._horizons.get(room_id, lambda: _since(intent, room_id, person), person)
        return math.inf if since is None else since

    def forget_power(self, room_id: str) -> None:
        """The power levels of a room have changed: ask again next time."""
        self._levels.forget(room_id)

    def forget(self, room_id: str) -> None:
        """Members or name of a room, or who may read it, have changed: ask again next time."""
        self._horizons.forget(room_id)
        self._members.forget(room_id)
        self._names.forget(room_id)


class _Known(Generic[Told]):
    """One thing about each room, or about each person there, asked for by one request at a
    time."""

    def __init__(self) -> None:
        self._told: dict[str, dict[str, Told]] = {}
        self._asking: dict[str, dict[str, asyncio.Task[Told]]] = {}

    async def get(
        self, room_id: str, ask: Callable[[], Coroutine[Any, Any, Told]], person: str = ""
    ) -> Told | None:
        if person in (told := self._told.get(room_id, {})):
            return told[person]
        under_way = self._asking.setdefault(room_id, {})
        asking = under_way.get(person)
        if asking is None:
            asking = under_way[person] = asyncio.create_task(
                self._ask(room_id, person, ask, under_way)
            )
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

    async def _ask(
        self,
        room_id: str,
        person: str,
        ask: Callable[[], Coroutine[Any, Any, Told]],
        under_way: dict[str, asyncio.Task[Told]],
    ) -> Told:
        try:
            async with asyncio.timeout(_PATIENCE):
                told = await ask()
            # What was forgotten in the meantime may be out of date already.
            if self._asking.get(room_id) is under_way:
                self._remember(room_id, person, told)
            return told
        finally:
            del under_way[person]
            if not under_way and self._asking.get(room_id) is under_way:
                del self._asking[room_id]

    def _remember(self, room_id: str, person: str, told: Told) -> None:
        if room_id not in self._told and len(self._told) >= _MOST_ROOMS:
            del self._told[next(iter(self._told))]
        self._told.setdefault(room_id, {})[person] = told


async def _since(intent: Intent, room_id: str, person: str) -> float:
    history = await intent.state(room_id, "m.room.history_visibility")
    rule = history.get("history_visibility", "shared")
    if rule in ("shared", "world_readable"):
        return 0.0
    since, event = math.inf, await intent.state_event(room_id, "m.room.member", person)
    for _ in range(_STEPS):
        match Event(event).membership:
            case "join":
                since = sent_at(event)
            case "invite" if rule == "invited":
                return sent_at(event)
            case "invite":
                # By the inviter's clock: a guest's own server may say any time of the joining.
                return max(since, sent_at(event))
            case _:
                return since
        if (earlier := await _before(intent, room_id, event)) is None:
            return since
        event = earlier
    return since


async def _before(intent: Intent, room_id: str, event: dict[str, Any]) -> dict[str, Any] | None:
    """The membership that one took the place of, None where there was none that can be seen."""
    replaced = mapping(event.get("unsigned")).get("replaces_state")
    if not isinstance(replaced, str):
        return None
    try:
        return await intent.event(room_id, replaced)
    except MatrixRequestError as error:
        if error.http_status != 404:
            raise
        return None
