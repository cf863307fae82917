"""Tools that read: a room's messages, the caller's rooms, who is in them."""

import asyncio
from typing import Any

from pydantic import Field

from letta_matrix.matrix.intent import Intent
from letta_matrix.store.agents import AgentDirectory
from letta_matrix.toolbox.naming import names_of, not_in, room_of
from letta_matrix.toolbox.principal import Scope
from letta_matrix.toolbox.results import UNTRUSTED, cut, fit_items, fit_texts
from letta_matrix.toolbox.timeline import FILTER, entry, is_message
from letta_matrix.toolbox.tool import Caller, Params, Result, RoomRef, Tool
from letta_matrix.toolbox.writing import ROOM

_MOST_PAGES = 8
_MOST_ROOMS = 50
_AT_ONCE = 8
_NAME = 200
_HEROES = 4


class ReadRoom(Params):
    room_id: RoomRef = Field(description=ROOM)
    limit: int = Field(10, ge=1, le=50, description="how many messages")
    before: str = Field(
        "", max_length=1000, description="`before` of an earlier answer, for older messages"
    )


class ListRooms(Params):
    include_members: bool = Field(False, description="also tell who is in them")
    after: int = Field(0, ge=0, description="`next` of an earlier answer")


class ListMembers(Params):
    room_id: RoomRef = Field(description=ROOM)
    after: int = Field(0, ge=0, description="`next` of an earlier answer")


class WhoAmI(Params):
    pass


class Reading:
    """The reading tools; `directory` tells agents by their names."""

    def __init__(self, directory: AgentDirectory) -> None:
        self._directory = directory

    def tools(self) -> list[Tool[Any]]:
        return [
            Tool(
                "matrix_read_room",
                "Read a room",
                "Read the newest messages of a Matrix room you are in, oldest first.",
                Scope.READ,
                ReadRoom,
                dict,
                self.read_room,
                read_only=True,
            ),
            Tool(
                "matrix_list_rooms",
                "List rooms",
                "List the Matrix rooms you are in.",
                Scope.READ,
                ListRooms,
                dict,
                self.list_rooms,
                read_only=True,
            ),
            Tool(
                "matrix_list_members",
                "List members",
                "List who is in a Matrix room you are in.",
                Scope.READ,
                ListMembers,
                dict,
                self.list_members,
                read_only=True,
            ),
            Tool(
                "matrix_whoami",
                "Who am I",
                "Tell your own Matrix user id, your room, and the room you are talking in now.",
                Scope.READ,
                WhoAmI,
                dict,
                self.whoami,
                read_only=True,
            ),
        ]

    async def read_room(self, caller: Caller, params: ReadRoom) -> Result:
        async with room_of(caller, params.room_id) as room_id:
            joined, (events, before) = await asyncio.gather(
                caller.intent.joined_rooms(),
                _messages(caller.intent, room_id, params.limit, params.before),
            )
        if room_id not in joined:
            raise not_in(caller, params.room_id)
        names = {agent.user_id: agent.name for agent in self._directory.all()}

        def make(length: int) -> dict[str, object]:
            messages = [entry(event, names, length) for event in reversed(events)]
            result: dict[str, object] = {"room_id": room_id, **UNTRUSTED, "messages": messages}
            return result | ({"before": before} if before else {})

        return fit_texts(make, "Long texts are cut; ask for fewer messages to read more of each.")

    async def list_rooms(self, caller: Caller, params: ListRooms) -> Result:
        everywhere = sorted(await caller.rooms())
        room_ids = everywhere[params.after : params.after + _MOST_ROOMS]
        names = await names_of(caller.intent, room_ids)
        gate = asyncio.Semaphore(_AT_ONCE)

        async def told(room_id: str, name: str) -> dict[str, object]:
            async with gate:
                return await self._room(caller.intent, room_id, name, params.include_members)

        rooms = await asyncio.gather(*map(told, room_ids, names))
        return fit_items(UNTRUSTED, "rooms", rooms, params.after, len(everywhere))

    async def list_members(self, caller: Caller, params: ListMembers) -> Result:
        async with room_of(caller, params.room_id) as room_id:
            joined = await caller.intent.joined_members(room_id)
        if caller.user_id not in joined:
            raise not_in(caller, params.room_id)
        members = [self._member(user_id, name) for user_id, name in sorted(joined.items())]
        rest, shown = {"room_id": room_id, **UNTRUSTED}, members[params.after :]
        return fit_items(rest, "members", shown, params.after, len(members))

    async def whoami(self, caller: Caller, _params: WhoAmI) -> Result:
        agent = self._directory.get(caller.agent_id)
        result: dict[str, object] = {"user_id": caller.user_id, "agent_id": caller.agent_id}
        if agent is not None:
            result |= {"name": cut(agent.name, _NAME), "own_room_id": agent.room_id}
        if caller.place is not None:
            result["here"] = {"room_id": caller.place.room_id}
            result["here"] |= {"thread": caller.place.thread_id} if caller.place.thread_id else {}
        return result

    async def _room(
        self, intent: Intent, room_id: str, name: str, with_members: bool
    ) -> dict[str, object]:
        room: dict[str, object] = {"room_id": room_id}
        alias = (await intent.state(room_id, "m.room.canonical_alias")).get("alias")
        joined = {} if name and not with_members else await intent.joined_members(room_id)
        room["name"] = cut(name or _heroes(intent.user_id, joined), _NAME)
        if isinstance(alias, str):
            room["alias"] = cut(alias, 255)
        if with_members:
            room["members"] = [self._member(who, joined[who]) for who in sorted(joined)]
        return room

    def _member(self, user_id: str, name: str) -> dict[str, object]:
        member: dict[str, object] = {"user_id": user_id, "name": cut(name, _NAME)}
        agent = self._directory.by_user(user_id)
        return member | ({"agent_id": agent.agent_id} if agent else {})


def _heroes(own_id: str, joined: dict[str, str]) -> str:
    """What a room without a name is called: after the others in it."""
    others = sorted(name for user_id, name in joined.items() if user_id != own_id)
    return ", ".join(others[:_HEROES]) + (", ..." if len(others) > _HEROES else "")


async def _messages(
    intent: Intent, room_id: str, limit: int, before: str
) -> tuple[list[dict[str, Any]], str]:
    """The newest messages before a token, newest first, and the token to go on from."""
    found: list[dict[str, Any]] = []
    for _ in range(_MOST_PAGES):
        # Never more than is wanted, so that the token stands right behind the last one.
        page = await intent.messages(
            room_id, limit=limit - len(found), before=before, filters=FILTER
        )
        found += filter(is_message, page.events)
        before = page.end
        if len(found) == limit or not before:
            break
    return found, before
