"""Which conversation of its runtime an agent has where, now and before."""

import time
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Executable, and_, delete, func, select, update

from letta_matrix.store.database import Database, StoreUnavailable
from letta_matrix.store.places import Place, at
from letta_matrix.store.rows import Statement
from letta_matrix.store.schema import conversations, turns

_TITLE_LENGTH = 80


@dataclass(frozen=True, slots=True)
class Conversation:
    """A conversation that an agent has or had at a place; times are Unix times."""

    seq: int
    place: Place
    conversation_id: str
    title: str
    current: bool
    created_at: float
    used_at: float


class ConversationStore:
    """The `conversations` table; the current ones are held in memory: call `load()` before use."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._current: dict[Place, str] = {}
        self._places: set[Place] = set()

    async def load(self) -> None:
        """Remember the current ones. Call before use."""
        for one in await self._find():
            self._places.add(one.place)
            if one.current:
                self._current[one.place] = one.conversation_id

    def agents_in(self, room_id: str) -> set[str]:
        """The ids of the agents that have had a conversation in a room."""
        return {place.agent_id for place in self._places if place.room_id == room_id}

    def talks_at(self, place: Place) -> bool:
        """Whether an agent has ever had a conversation at a place, or is about to."""
        return place in self._places

    def expect(self, place: Place) -> None:
        """A conversation is about to begin at a place."""
        self._places.add(place)

    def current(self, place: Place) -> str | None:
        """The conversation that goes on at a place."""
        return self._current.get(place)

    async def begin(self, place: Place, conversation_id: str, title: str) -> None:
        """Make a new conversation the current one of its place."""
        left, now = _leave(place), time.time()
        new = conversations.insert().values(
            **place._asdict(),
            conversation_id=conversation_id,
            title=" ".join(title.split())[:_TITLE_LENGTH],
            current=True,
            created_at=now,
            used_at=now,
        )
        await self._database.execute(left, new)
        self._goes_on(place, conversation_id)

    async def replace(self, place: Place, old: str, new: str, *also: Statement) -> None:
        """A conversation goes on under another id (it was forked)."""
        values = {"conversation_id": new, "used_at": time.time()}
        moved = update(conversations).where(_one(place, old)).values(**values)
        await self._database.execute(moved, *also)
        if self._current.get(place) == old:
            self._current[place] = new

    async def leave(self, place: Place, conversation_id: str) -> bool:
        """Let the next message start afresh; False if another conversation than this one, or
        none, goes on there."""
        if self.current(place) != conversation_id:
            return False
        # First here: a message that comes while this is being stored belongs to the next one.
        del self._current[place]
        try:
            await self._database.execute(_leave(place, conversation_id))
        except StoreUnavailable:
            self._current.setdefault(place, conversation_id)
            raise
        return True

    async def forget(self, place: Place, conversation_id: str, *also: Statement) -> None:
        """The runtime no longer has a conversation."""
        gone = delete(conversations).where(_one(place, conversation_id))
        await self._database.execute(gone, *also)
        if self._current.get(place) == conversation_id:
            del self._current[place]

    async def return_to(self, conversation: Conversation, place: Place) -> None:
        """Make an old conversation of the same agent and room the current one at `place`."""
        left = _leave(place)
        values = {"current": True, "used_at": time.time(), "thread_id": place.thread_id}
        taken = update(conversations).where(conversations.c.seq == conversation.seq)
        await self._database.execute(left, taken.values(**values))
        if self.current(conversation.place) == conversation.conversation_id:
            del self._current[conversation.place]
        self._goes_on(place, conversation.conversation_id)

    async def move(self, agent_id: str, old: str, new: str) -> None:
        """All conversations of an agent in the room `old` go on in the room `new`; where one has
        begun there already, that stays the current one."""
        in_old = (conversations.c.agent_id == agent_id) & (conversations.c.room_id == old)
        begun = [one.thread_id for one in self._current if one[:2] == (agent_id, new)]
        left = update(conversations).where(in_old, conversations.c.thread_id.in_(begun))
        moved = update(conversations).where(in_old).values(room_id=new)
        await self._database.execute(left.values(current=False), moved)
        for place in [one for one in self._places if one[:2] == (agent_id, old)]:
            self._places.add(place._replace(room_id=new))
            if (current := self._current.pop(place, None)) is not None:
                self._current.setdefault(place._replace(room_id=new), current)

    async def count_of(self, agent_id: str) -> int:
        """How many conversations an agent has had, in all rooms."""
        query = select(func.count()).where(conversations.c.agent_id == agent_id)
        return await self._database.read(lambda db: db.execute(query).scalar_one())

    async def all_in(self, agent_id: str, room_id: str) -> list[Conversation]:
        """Every conversation of an agent in a room, the last used first."""
        mine = conversations.c.agent_id == agent_id
        found = await self._find(mine, conversations.c.room_id == room_id)
        return sorted(found, key=lambda one: (one.used_at, one.seq), reverse=True)

    async def place_of(self, agent_id: str, conversation_id: str) -> Place | None:
        """Where an agent has a conversation; of several places the one where a message is being
        answered in it, else the newest."""
        same = conversations.c.conversation_id == conversation_id
        found = await self._find(same, conversations.c.agent_id == agent_id)
        if len(found) < 2:
            return found[0].place if found else None
        answered = (turns.c.agent_id == agent_id) & (turns.c.conversation_id == conversation_id)
        open_here = select(turns).where(answered, turns.c.status == "running")
        running = {
            (row["room_id"], row["thread_id"]) for row in await self._database.rows(open_here)
        }
        return max(found, key=lambda one: (one.place[1:] in running, one.seq)).place

    async def _find(self, *where: ColumnElement[bool]) -> list[Conversation]:
        rows = await self._database.rows(select(conversations).where(*where))
        return [_conversation(dict(row)) for row in rows]

    def _goes_on(self, place: Place, conversation_id: str) -> None:
        self._current[place] = conversation_id
        self._places.add(place)


def _leave(place: Place, conversation_id: str | None = None) -> Executable:
    left = and_(*at(conversations, place), conversations.c.current)
    if conversation_id is not None:
        left &= conversations.c.conversation_id == conversation_id
    return update(conversations).where(left).values(current=False, used_at=time.time())


def _one(place: Place, conversation_id: str) -> ColumnElement[bool]:
    return and_(
        conversations.c.agent_id == place.agent_id,
        conversations.c.room_id == place.room_id,
        conversations.c.conversation_id == conversation_id,
    )


def _conversation(row: dict[str, Any]) -> Conversation:
    place = Place(*(row.pop(name) for name in Place._fields))
    return Conversation(place=place, **row)
