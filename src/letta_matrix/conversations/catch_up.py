"""Finds messages that the homeserver accepted and never pushed.

Synapse moves its position in the event stream before it stores the transaction with
those events (seen on 1.163): killed in between, it forgets to push them. Application
services may not /sync, so after a start or an outage every room with an agent is looked at
once, the liveliest first, slowly and behind all messages. What our own users wrote there is left
out: a reply that grew is a hundred events, and people's few messages are what is looked for.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Mapping
from typing import Any

import structlog
from mautrix.errors import MatrixRequestError

from letta_matrix.common.parts import part
from letta_matrix.conversations.answered import ended_in
from letta_matrix.conversations.audience import ours_in
from letta_matrix.conversations.dispatcher import Dispatcher
from letta_matrix.matrix.events import Event, corrected
from letta_matrix.matrix.intent import Intent
from letta_matrix.matrix.room_reading import Page
from letta_matrix.matrix.watch import ServerState, look
from letta_matrix.store.agents import AgentDirectory, AgentStatus
from letta_matrix.store.meta import Meta
from letta_matrix.store.rooms import Rooms
from letta_matrix.store.turns import TurnStore

log = structlog.get_logger()

_FIRST_PAGE, _NEXT_PAGES = 50, 500
"""Events asked for; the first page is often the last."""
_AT_ONCE = 100
"""Events admitted at once, as many as a homeserver pushes."""
_PAUSE = 0.04
_BEAT = 1800.0
_OLDER, _NEWER = "alive_older", "alive_newer"


@part
class CatchUp:
    """Looks for what was missed since the bridge was last surely up to date, at most `max_age`
    seconds ago. `trouble` says, for half an hour, where that was too long ago; `lines` are those
    of our users that are logged in to bridges."""

    _bot: Intent
    _directory: AgentDirectory
    _rooms: Rooms
    _turns: TurnStore
    _meta: Meta
    _dispatcher: Dispatcher
    _max_age: float
    _lines: Collection[str] = ()

    def __post_init__(self) -> None:
        self._unseen = 0
        self.is_silent: Callable[[], bool] = lambda: False
        """Whether nothing is pushed for now. What other homeservers send late, with a time before
        a look, is then found by none but the next: the time to look back to stays."""

    @property
    def trouble(self) -> str:
        """What operators should know, "" for nothing."""
        if not self._unseen:
            return ""
        return (
            f"messages that were never pushed are looked for {self._max_age / 3600:g} h back "
            f"(conversations.max_event_age); in {self._unseen} rooms there may be older ones"
        )

    async def run(self) -> None:
        """Admit what was missed. Raises HomeserverUnavailable, to be tried again then."""
        # Taken first: what is lost while we look is for the next time.
        now, self._unseen = self._now(), 0
        since = await self._meta.get(_OLDER)
        if since is not None:
            for room_id, user_id, begun in await self._liveliest_first():
                await self._look(room_id, user_id, max(float(since), begun))
                await asyncio.sleep(_PAUSE)
        if since is None or not self.is_silent():
            await self._move_to(now)

    async def beat(self) -> None:
        """Move the time to look back to, for ever. A push can be late, but not by half an hour."""
        if await self._meta.get(_OLDER) is None:
            await self._move_to(self._now())
        while True:
            await asyncio.sleep(_BEAT)
            self._unseen = 0
            newer = None if self.is_silent() else await self._meta.get(_NEWER)
            # What happens while the homeserver is away is to be looked for when it is back.
            if newer is not None and await look(self._bot.homeserver) is ServerState.HERE:
                await self._meta.set(_OLDER, newer)
                await self._meta.set(_NEWER, self._now())

    def _now(self) -> str:
        # Compared with when messages were sent, which the homeserver says.
        return str(self._bot.homeserver.clock.now())

    async def _move_to(self, now: str) -> None:
        await self._meta.set(_OLDER, now)
        await self._meta.set(_NEWER, now)

    async def _liveliest_first(self) -> list[tuple[str, str, float]]:
        """Every room one of us is in: its id, one of our users there, and since when."""
        places = {room_id: place for place, room_id in enumerate(await self._turns.rooms())}
        ours = [agent for agent in self._directory.all() if agent.status is AgentStatus.ACTIVE]
        rooms: dict[str, tuple[str, float]] = {}
        others = (self._bot.user_id, *self._lines)
        for user_id in [*others, *(agent.user_id for agent in ours)]:
            for room_id in self._rooms.rooms_of(user_id):
                rooms[room_id] = user_id, self._rooms.since(room_id, user_id)
        own = {agent.room_id: agent for agent in ours if agent.room_id is not None}
        rooms |= {room_id: (agent.user_id, agent.created_at) for room_id, agent in own.items()}
        found = [(room_id, *looker) for room_id, looker in rooms.items()]
        return sorted(found, key=lambda room: places.get(room[0], len(places)))

    async def _look(self, room_id: str, user_id: str, since: float) -> None:
        try:
            missed = await self._missed(room_id, self._bot.acting_as(user_id), since)
        except MatrixRequestError as error:
            log.debug("a room cannot be looked through", room=room_id, reason=str(error))
            return
        if missed:
            log.warning("messages were missed", room=room_id, count=len(missed))
            for begin in range(0, len(missed), _AT_ONCE):
                # What is said now comes in between.
                part = missed[begin : begin + _AT_ONCE]
                await self._dispatcher.admit("catch-up", part, missed=True)

    async def _missed(self, room_id: str, looker: Intent, since: float) -> list[dict[str, Any]]:
        """A room's events after `since` (a Unix time) that never came, oldest first."""
        owner = self._directory.by_room(room_id)
        ours = sorted(set(ours_in(room_id, self._directory, self._rooms)))
        # Other agents may write to an agent in its own room.
        silent = [owner.user_id] if owner is not None else ours
        missed: list[dict[str, Any]] = []
        until = max(since, looker.homeserver.clock.now() - self._max_age)
        async for page in pages_back(room_id, looker, {"not_senders": silent}, until):
            # Those in the last page that are too old by now are told so.
            new = [dict(corrected(event)) for event in page.events if Event(event).sent_at > since]
            missed += await self._dispatcher.missing(new)
            if page.end and not _goes_back_to(since, page) and _goes_back_to(until, page):
                self._unseen += 1
                log.warning("not looked for missed messages before", room=room_id, time=until)
        said: list[dict[str, Any]] = []
        if missed:
            until = min(Event(event).sent_at for event in missed)
            async for page in pages_back(room_id, looker, {"senders": ours}, until):
                said += page.events
        return unanswered(missed, said)[::-1]


async def pages_back(
    room_id: str, looker: Intent, filters: Mapping[str, Any], until: float
) -> AsyncGenerator[Page]:
    """A room's events that match `filters`, the newest first, back to a Unix time."""
    limit, before = _FIRST_PAGE, ""
    while True:
        await looker.homeserver.pacer.background()
        page = await looker.messages(room_id, limit=limit, before=before, filters=filters)
        yield page
        if _goes_back_to(until, page) or page.end in ("", before):
            return
        limit, before = _NEXT_PAGES, page.end


def _goes_back_to(then: float, page: Page) -> bool:
    """Whether a page ends before a time: one event with a wrong clock does not count."""
    older = page.events[len(page.events) // 2 :]
    return bool(older) and all(Event(event).sent_at <= then for event in older)


def unanswered(missed: list[dict[str, Any]], said: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those of `missed` that nothing our users `said`, the newest first, names as answered.

    That an event is not in the inbox does not mean that it was missed: the database may be an
    old copy. The ghosts' own markers know better.
    """
    answered = {None, *ended_in(said)}
    return [event for event in missed if event.get("event_id") not in answered]
