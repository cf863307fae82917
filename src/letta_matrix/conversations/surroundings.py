"""What has to be known around a message before it is decided whom it is for: who is in its room,
who wrote what it refers to."""

import asyncio
from collections.abc import Awaitable, Mapping
from functools import partial
from typing import Any, NamedTuple, TypeVar

import structlog
from mautrix.errors import MatrixRequestError

from letta_matrix.common.identifiers import persons
from letta_matrix.common.parts import part
from letta_matrix.common.tasks import Tasks
from letta_matrix.conversations.audience import NOTHING, Refers, ours_in
from letta_matrix.conversations.new_turns import are_ids, is_whole, reply_of, thread_of
from letta_matrix.conversations.readable import SAID, read_prompt
from letta_matrix.conversations.routing import Router
from letta_matrix.matrix.events import Event
from letta_matrix.matrix.homeserver import HomeserverUnavailable
from letta_matrix.matrix.intent import Intent
from letta_matrix.matrix.mentions import names_in
from letta_matrix.store.agents import AgentDirectory
from letta_matrix.store.database import StoreUnavailable
from letta_matrix.store.outbox import Outbox
from letta_matrix.store.rooms import Rooms
from letta_matrix.store.turns import TurnStore

log = structlog.get_logger()

_T = TypeVar("_T")

_CROWD = 0.2
"""Seconds in which more people may join a room before it is looked at."""

_MOST = 5_000


class _Written(NamedTuple):
    """Who wrote an event, in which room and in which thread of it ("" for none)."""

    room_id: str
    sender: str
    thread: str


@part
class Surroundings:
    """Knows it from what came by (`heard`) and what the database has, and asks the homeserver
    only for the rest."""

    _router: Router
    _bot: Intent
    _directory: AgentDirectory
    _rooms: Rooms
    _outbox: Outbox
    _turns: TurnStore

    def __post_init__(self) -> None:
        self._bot_user_id = self._bot.user_id
        self._written: dict[str, _Written] = {}
        self._looking: dict[str, bool] = {}
        self._looks = Tasks()

    def heard(self, event: Mapping[str, Any]) -> None:
        """Remember whose an event is: others may refer to it soon."""
        is_said = event.get("type") in (*SAID, "m.room.encrypted")
        if is_said and is_whole(event) and not Event(event).is_edit:
            written = _Written(event["room_id"], event["sender"], thread_of(event))
            self._remember(event["event_id"], written)

    async def of(self, event: Mapping[str, Any], until: float) -> Refers:
        """What a message refers to; learns who is in its room where that matters, too. The
        homeserver is waited for `until` a time of the loop's clock, no longer."""
        if not is_whole(event) or not self._router.may_speak(event["sender"]):
            return NOTHING
        if not self._router.knows(event["room_id"]) or not read_prompt(event)[1]:
            return NOTHING
        return await self._refers(event, event["room_id"], until)

    async def look(self, room_id: str) -> None:
        """Learn which persons are in a room, if the homeserver tells any of us."""
        for user_id in ours_in(room_id, self._directory, self._rooms):
            intent = self._bot.acting_as(user_id)
            try:
                await self._rooms.learn(room_id, partial(self._people, intent, room_id))
            except (MatrixRequestError, HomeserverUnavailable) as error:
                log.debug("a room cannot be looked at", room=room_id, reason=str(error))
            else:
                return

    def changed(self, room_id: str) -> None:
        """Somebody came to a room or left it: look at it soon, if that matters."""
        if not self._rooms.ours_in(room_id) and self._rooms.people_in(room_id) is None:
            return
        looking = room_id in self._looking
        self._looking[room_id] = True
        if not looking:
            self._looks.start(self._look_again(room_id))

    async def close(self) -> None:
        """Look at no more rooms."""
        await self._looks.cancel()

    async def _look_again(self, room_id: str) -> None:
        # People come in crowds: one look at the first, and one after all the others.
        try:
            while self._looking[room_id]:
                self._looking[room_id] = False
                await self.look(room_id)
                await asyncio.sleep(_CROWD)
        except StoreUnavailable as error:
            log.info("a room is not looked at now", room=room_id, reason=str(error))
        finally:
            del self._looking[room_id]

    async def look_at_all(self) -> None:
        """Learn it of every room that one of us was invited into, behind all messages: somebody
        may have come or gone while nobody listened."""
        for room_id in self._rooms.all():
            await self._bot.homeserver.pacer.background()
            await self.look(room_id)

    async def _refers(self, event: Mapping[str, Any], room_id: str, until: float) -> Refers:
        content, target = Event(event).content, reply_of(event)
        is_home = self._directory.by_room(room_id) is not None
        # That somebody came or went does not matter in an agent's own room.
        moved = not is_home and self._rooms.moves(room_id) > 0
        if self._rooms.people_in(room_id) is None and (
            target or moved or self._names_a_person(content)
        ):
            await _in_time(self.look(room_id), until, room_id)
        root = thread_of(event) if not is_home else ""
        begun = await self._author(room_id, root, until) if root else None
        answered = await self._author(room_id, target, until) if target else None
        return Refers(
            begun.sender if begun else "",
            answered.sender if answered else "",
            answered.thread if answered else "",
        )

    def _names_a_person(self, content: Mapping[str, Any]) -> bool:
        domain = self._bot_user_id.partition(":")[2]
        whole = (one if ":" in one else f"{one}:{domain}" for one in names_in(content))
        return bool(persons(whole, self._bot_user_id))

    async def _author(self, room_id: str, event_id: str, until: float) -> _Written | None:
        """Who wrote an event of a room; None where nobody of us may know."""
        written = self._written.get(event_id) or await self._stored(event_id)
        if written is None:
            written = await _in_time(self._told(room_id, event_id), until, room_id)
        if written is None:
            return None
        self._remember(event_id, written)
        return written if written.room_id == room_id else None

    async def _stored(self, event_id: str) -> _Written | None:
        if (turn := await self._outbox.turn_of(event_id)) is not None:
            agent = self._directory.get(turn.agent_id)
            sender = agent.user_id if agent is not None else self._bot_user_id
            return _Written(turn.room_id, sender, turn.thread_id)
        for turn in await self._turns.prompted_by(event_id):
            # Where a mention begins a thread, its message stands outside of it.
            thread = "" if turn.thread_id == event_id else turn.thread_id
            return _Written(turn.room_id, turn.sender, thread)
        return None

    async def _told(self, room_id: str, event_id: str) -> _Written | None:
        for user_id in ours_in(room_id, self._directory, self._rooms)[:1]:
            try:
                event = await self._bot.acting_as(user_id).event(room_id, event_id)
            except (MatrixRequestError, HomeserverUnavailable) as error:
                log.debug("an event cannot be looked at", room=room_id, reason=str(error))
                return None
            if are_ids(sender := event.get("sender")):
                return _Written(room_id, str(sender), thread_of(event))
        return None

    async def _people(self, intent: Intent, room_id: str) -> set[str]:
        return persons(await intent.joined_members(room_id), self._bot_user_id)

    def _remember(self, event_id: str, written: _Written) -> None:
        self._written.pop(event_id, None)
        if len(self._written) >= _MOST:
            del self._written[next(iter(self._written))]
        self._written[event_id] = written


async def _in_time(asking: Awaitable[_T], until: float, room_id: str) -> _T | None:
    """What the homeserver tells until a time, None if it has told nothing by then."""
    try:
        async with asyncio.timeout_at(until):
            return await asking
    except TimeoutError:
        log.warning("a message is routed without what it refers to", room=room_id)
        return None
