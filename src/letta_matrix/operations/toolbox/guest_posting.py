"""Agents in rooms of other agents, to leave a message there."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

import structlog
from mautrix.errors import MatrixRequestError, MForbidden

from letta_matrix.common.backoff import Backoff
from letta_matrix.common.connections.unreached import why_unreached
from letta_matrix.common.tasks import Tasks
from letta_matrix.matrix.homeserver import HomeserverUnavailable
from letta_matrix.matrix.intent import Intent
from letta_matrix.store.agents import Agent, AgentDirectory
from letta_matrix.store.database import StoreUnavailable
from letta_matrix.store.rooms import Rooms
from letta_matrix.store.turns import TurnKind, TurnStore

log = structlog.get_logger()

_LEAVE_WITHIN = 5.0
"""Seconds; a room that is not left then is left later."""
_PAUSES = Backoff(5.0, longest=300.0)


class GuestPosting:
    """Lets an agent into another agent's own room for one message.

    Whoever is there without an invitation of a person has come for such a message. It is no
    member: what else is said there is for the room's agent and its people alone.
    """

    def __init__(self, directory: AgentDirectory, rooms: Rooms, turns: TurnStore) -> None:
        self._directory = directory
        self._rooms = rooms
        self._turns = turns
        self._doors: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()
        self._leaving = Tasks()

    async def close(self) -> None:
        """What is not left now is left when it is noticed."""
        await self._leaving.cancel()

    @asynccontextmanager
    async def visit(self, intent: Intent, host: Agent) -> AsyncGenerator[str]:
        """Be in the room of `host`, which must have one; its id. One visit at a time."""
        room_id = str(host.room_id)
        if not self._is_visitor(intent, room_id):
            yield room_id
            return
        async with self._door(intent, room_id):
            try:
                await _enter(intent, host)
                yield room_id
            finally:
                if self._is_visitor(intent, room_id) and not await _leave(intent, room_id):
                    self._leaving.start(self._leave_later(intent, room_id))

    async def refuses(self, intent: Intent, room_id: str) -> bool:
        """Whether a room is not for `intent` to act in, being in it or not, because it is
        another agent's. What a visit that was killed did not leave is left now."""
        if not self._is_visitor(intent, room_id):
            return False
        door = self._door(intent, room_id)
        if not door.locked():
            async with door:
                await self._leave_behind(intent, room_id)
        return True

    def _is_visitor(self, intent: Intent, room_id: str) -> bool:
        host = self._directory.by_room(room_id)
        if host is None or host.user_id == intent.user_id:
            return False
        if self._directory.by_user(intent.user_id) is None:
            return False  # the bot, at home in every agent's room
        return intent.user_id not in self._rooms.ours_in(room_id)

    async def _leave_later(self, intent: Intent, room_id: str) -> None:
        """What is said there meanwhile is for others."""
        for pause in _PAUSES:
            await asyncio.sleep(pause)
            try:
                async with self._door(intent, room_id):
                    if await self._leave_behind(intent, room_id):
                        return
            except (MatrixRequestError, HomeserverUnavailable, StoreUnavailable) as error:
                log.info("not known whether a room was left", room=room_id, reason=str(error))

    async def _leave_behind(self, intent: Intent, room_id: str) -> bool:
        """Leave a room that is not to be stayed in; False: it was tried in vain."""
        if room_id not in await intent.joined_rooms():
            return True
        invited = any(
            (turn.kind, turn.prompt) == (TurnKind.INVITE, intent.user_id)
            for turn in await self._turns.unfinished(room_id=room_id)
        )
        # One that a person has invited becomes a member in a moment.
        if invited or not self._is_visitor(intent, room_id):
            return True
        log.info("an agent leaves another's room late", user=intent.user_id, room=room_id)
        return await _leave(intent, room_id)

    def _door(self, intent: Intent, room_id: str) -> asyncio.Lock:
        return self._doors.setdefault((intent.user_id, room_id), asyncio.Lock())


async def _enter(intent: Intent, host: Agent) -> None:
    room_id = str(host.room_id)
    try:
        await intent.join(room_id)
    except MForbidden:
        await intent.acting_as(host.user_id).invite(room_id, intent.user_id)
        await intent.join(room_id)


async def _leave(intent: Intent, room_id: str) -> bool:
    try:
        async with asyncio.timeout(_LEAVE_WITHIN):
            await intent.leave(room_id)
        return True
    except (MatrixRequestError, HomeserverUnavailable, TimeoutError) as error:
        why = why_unreached(error)
        log.warning("a room is not left", user=intent.user_id, room=room_id, reason=why)
        return False
