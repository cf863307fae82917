"""Finds messages that the homeserver accepted and never pushed.

Synapse moves its position in the event stream before it stores the transaction with
those events (seen on 1.163): killed in between, it forgets to push them. Application
services may not /sync, so after a start or an outage every room with an agent is looked at
once, the liveliest first, slowly and behind all messages.
"""

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import structlog
from mautrix.errors import MatrixRequestError

from letta_matrix.conversations.dispatcher import Dispatcher
from letta_matrix.matrix.content import MARKER
from letta_matrix.matrix.events import mapping
from letta_matrix.matrix.intent import Intent
from letta_matrix.matrix.watch import Presence, look
from letta_matrix.store.agents import AgentDirectory, AgentStatus
from letta_matrix.store.meta import Meta
from letta_matrix.store.rooms import Rooms
from letta_matrix.store.turns import TurnStore

log = structlog.get_logger()

_PAUSE = 0.04
_BEAT = 1800.0
_OLDER, _NEWER = "alive_older", "alive_newer"


class CatchUp:
    """Looks for what was missed since the bridge was last surely up to date."""

    def __init__(
        self,
        bot: Intent,
        directory: AgentDirectory,
        rooms: Rooms,
        turns: TurnStore,
        meta: Meta,
        dispatcher: Dispatcher,
    ) -> None:
        self._bot = bot
        self._directory = directory
        self._rooms = rooms
        self._turns = turns
        self._meta = meta
        self._dispatcher = dispatcher

    async def run(self) -> None:
        """Admit what was missed. Raises HomeserverUnavailable, to be tried again then."""
        # Taken first: what is lost while we look is for the next time.
        now = str(time.time())
        since = await self._meta.get(_OLDER)
        if since is not None:
            for room_id, user_id, begun in await self._liveliest_first():
                await self._look(room_id, user_id, max(float(since), begun))
                await asyncio.sleep(_PAUSE)
        await self._move_to(now)

    async def beat(self) -> None:
        """Move the time to look back to, for ever. A push can be late, but not by half an hour."""
        if await self._meta.get(_OLDER) is None:
            await self._move_to(str(time.time()))
        while True:
            await asyncio.sleep(_BEAT)
            newer = await self._meta.get(_NEWER)
            # What happens while the homeserver is away is to be looked for when it is back.
            if newer is not None and await self._is_here():
                await self._meta.set(_OLDER, newer)
                await self._meta.set(_NEWER, str(time.time()))

    async def _is_here(self) -> bool:
        return await look(self._bot.homeserver) is Presence.HERE

    async def _move_to(self, now: str) -> None:
        await self._meta.set(_OLDER, now)
        await self._meta.set(_NEWER, now)

    async def _liveliest_first(self) -> list[tuple[str, str, float]]:
        """Every room one of us is in: its id, one of our users there, and since when."""
        places = {room_id: place for place, room_id in enumerate(await self._turns.rooms())}
        ours = [agent for agent in self._directory.all() if agent.status is AgentStatus.ACTIVE]
        rooms: dict[str, tuple[str, float]] = {}
        for user_id in [self._bot.user_id, *(agent.user_id for agent in ours)]:
            for room_id in self._rooms.rooms_of(user_id):
                rooms[room_id] = user_id, self._rooms.since(room_id, user_id)
        own = {agent.room_id: agent for agent in ours if agent.room_id is not None}
        rooms |= {room_id: (agent.user_id, agent.created_at) for room_id, agent in own.items()}
        found = [(room_id, *looker) for room_id, looker in rooms.items()]
        return sorted(found, key=lambda room: places.get(room[0], len(places)))

    async def _look(self, room_id: str, user_id: str, since: float) -> None:
        await self._bot.homeserver.pacer.background()
        try:
            events = await Intent(self._bot.homeserver, user_id).recent_events(room_id)
        except MatrixRequestError as error:
            log.debug("a room cannot be looked through", room=room_id, reason=str(error))
            return
        missed = unanswered(events, user_id, since)
        if missed:
            await self._dispatcher.admit("catch-up", missed)


def unanswered(events: list[dict[str, Any]], ghost: str, since: float) -> list[dict[str, Any]]:
    """The events after `since` (a Unix time) that no event of `ghost` names as answered.

    That an event is not in the inbox does not mean that it was missed: the database may be an
    old copy. The ghost's own markers know better.
    """
    answered = {
        mapping(mapping(event.get("content")).get(MARKER)).get("in_reply_to")
        for event in events
        if event.get("sender") == ghost
    }
    return [
        event
        for event in events
        if event.get("event_id") not in answered and _sent_at(event) > since
    ]


def _sent_at(event: Mapping[str, Any]) -> float:
    milliseconds = event.get("origin_server_ts")
    return milliseconds / 1000 if isinstance(milliseconds, int | float) else 0.0
