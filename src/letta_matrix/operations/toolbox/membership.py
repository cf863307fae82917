"""Which of us are in which room, as the bridge knows it."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from letta_matrix.common.identifiers import is_ours, persons
from letta_matrix.common.parts import part
from letta_matrix.matrix.events import Event
from letta_matrix.matrix.intent import Intent
from letta_matrix.store.agents import AgentDirectory
from letta_matrix.store.rooms import Rooms

log = structlog.get_logger()

Entered = Callable[[Intent, str, str], Awaitable[None]]
"""Hears of who has come into which room, and by which event."""


async def nobody_hears(intent: Intent, room_id: str, event_id: str) -> None:
    """For a toolbox without a dispatcher."""


@part
class Membership:
    """Notes that our users come into rooms and leave them by a tool.

    Whoever of us comes into a room by a tool is a member there, as if a person had invited it.
    `on_entered` hears of who has come into which room so, and by which event.
    """

    _bot_user_id: str
    _directory: AgentDirectory
    _rooms: Rooms
    on_entered: Entered

    async def entered(self, intent: Intent, room_id: str) -> None:
        """One of our users is in a room now."""
        if self._is_home(intent.user_id, room_id):
            return
        if intent.user_id in self._rooms.ours_in(room_id):
            return

        async def people() -> set[str]:
            return persons(await intent.joined_members(room_id), self._bot_user_id)

        learning = self._rooms.learn(room_id, people)
        _, (event_id, since) = await asyncio.gather(learning, _joined_by(intent, room_id))
        is_direct = len(self._rooms.people_in(room_id) or ()) <= 1
        await self._rooms.joined(room_id, intent.user_id, direct=is_direct, since=since)
        log.info("room joined", user=intent.user_id, room=room_id)
        await self.on_entered(intent, room_id, event_id)

    async def left(self, intent: Intent, room_id: str) -> None:
        """One of our users is not in a room any more."""
        await self._rooms.left(room_id, intent.user_id)

    async def why_needed(self, intent: Intent, room_id: str, user_id: str) -> str:
        """Why a user must be in a room as it is, "" where it need not."""
        if self._is_home(user_id, room_id):
            return "it is an agent's own room"
        if user_id == self._bot_user_id and await self._is_bridges(intent, room_id):
            return "the bridge works with it"
        return ""

    def _is_home(self, user_id: str, room_id: str) -> bool:
        """Whether it is an agent's own room, in which that agent and the bot always are."""
        host = self._directory.by_room(room_id)
        return host is not None and user_id in (host.user_id, self._bot_user_id)

    async def _is_bridges(self, intent: Intent, room_id: str) -> bool:
        """Whether a room is the space or the control room, known by aliases only we can give."""
        if room_id not in await intent.joined_rooms():
            # Whoever is only invited may not read its state, and declines what is not ours.
            return False
        alias = (await intent.state(room_id, "m.room.canonical_alias")).get("alias")
        return isinstance(alias, str) and is_ours(f"@{alias[1:]}", self._bot_user_id)


async def _joined_by(intent: Intent, room_id: str) -> tuple[str, float]:
    """The event by which `intent` has just come into a room, and when (Unix time): by the
    homeserver's clock, which also tells when messages were sent."""
    wanted = {"types": ["m.room.member"], "senders": [intent.user_id]}
    page = await intent.messages(room_id, limit=1, filters=wanted)
    event = page.events[0] if page.events else {}
    joined_at = Event(event).sent_at or intent.homeserver.clock.now()
    return str(event.get("event_id", "")), joined_at
