"""Tools that read; here those that tell who and where the caller is: its rooms, who is in them."""

import asyncio
from typing import NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from letta_matrix.access.principal import Scope
from letta_matrix.matrix.intent import Intent
from letta_matrix.store.agents import AgentDirectory
from letta_matrix.toolbox.known_rooms import KnownRooms
from letta_matrix.toolbox.naming import not_in, room_of
from letta_matrix.toolbox.results import UNTRUSTED, cut, first_of, fit_items
from letta_matrix.toolbox.tool import Caller, Params, Result, RoomRef, tool
from letta_matrix.toolbox.writing import ROOM

_MOST_ROOMS = 50
_MOST_TOLD = 100
"""Rooms of a limited token that are named."""

_MOST_MEMBERS, _MEMBERS_BYTES = 20, 4_000
"""Members told of each room in a list of rooms."""

_AT_ONCE = 8
_NAME = 200


class ListRooms(Params):
    include_members: bool = Field(False, description="also tell some who are in them")
    after: int = Field(0, ge=0, description="`next` of an earlier answer")


class ListMembers(Params):
    room_id: RoomRef = Field(description=ROOM)
    after: int = Field(0, ge=0, description="`next` of an earlier answer")


class WhoAmI(Params):
    pass


class Member(TypedDict):
    """Who is in a room; `agent_id` if it is an agent here."""

    user_id: str
    name: str
    agent_id: NotRequired[str]


class Room(TypedDict):
    """A room the caller is in. A room without a name is called after the others in it. `joined`
    is how many there are where `members` are not all; matrix_list_members has the rest."""

    room_id: str
    name: str
    alias: NotRequired[str]
    members: NotRequired[list[Member]]
    joined: NotRequired[int]


class RoomList(TypedDict):
    """Rooms; `next` tells that more follow."""

    untrusted: str
    rooms: list[Room]
    next: NotRequired[int]
    note: NotRequired[str]


class MemberList(TypedDict):
    """Who is in a room; `next` tells that more follow."""

    room_id: str
    untrusted: str
    members: list[Member]
    next: NotRequired[int]
    note: NotRequired[str]


class Here(TypedDict):
    """Where the caller is talking now."""

    room_id: str
    thread: NotRequired[str]


class Self(TypedDict):
    """Who the caller is. `agent_id` is empty for the bridge's bot. `rooms` are the only ones it
    may act in, where it is limited to some; `scopes` the groups of tools it may use."""

    user_id: str
    agent_id: str
    name: NotRequired[str]
    own_room_id: NotRequired[str | None]
    here: NotRequired[Here]
    scopes: list[str]
    destructive: bool
    rooms: NotRequired[list[str]]


class Reading:
    """All reading tools; `directory` tells agents by their names."""

    def __init__(self, directory: AgentDirectory, known: KnownRooms) -> None:
        self._directory = directory
        self._known = known

    @tool("matrix_list_rooms", "List rooms", Scope.READ, RoomList, read_only=True)
    async def list_rooms(self, caller: Caller, params: ListRooms) -> Result:
        """List the Matrix rooms you are in."""
        everywhere = sorted(await caller.rooms())
        room_ids = everywhere[params.after : params.after + _MOST_ROOMS]
        gate = asyncio.Semaphore(_AT_ONCE)

        async def told(room_id: str) -> dict[str, object]:
            async with gate:
                return await self._room(caller.intent, room_id, params.include_members)

        rooms = await asyncio.gather(*map(told, room_ids))
        return fit_items(UNTRUSTED, "rooms", rooms, params.after, len(everywhere))

    @tool("matrix_list_members", "List members", Scope.READ, MemberList, read_only=True)
    async def list_members(self, caller: Caller, params: ListMembers) -> Result:
        """List who is in a Matrix room you are in."""
        async with room_of(caller, params.room_id) as room_id:
            joined = await caller.intent.joined_members(room_id)
        if caller.user_id not in joined:
            raise not_in(caller, params.room_id)
        members = [self._member(user_id, name) for user_id, name in sorted(joined.items())]
        rest, shown = {"room_id": room_id, **UNTRUSTED}, members[params.after :]
        return fit_items(rest, "members", shown, params.after, len(members))

    @tool("matrix_whoami", "Who am I", Scope.READ, Self, read_only=True)
    async def whoami(self, caller: Caller, _params: WhoAmI) -> Result:
        """Tell your own Matrix user id, your room, and the room you are talking in now."""
        principal = caller.principal
        agent = self._directory.get(caller.agent_id) if caller.agent_id else None
        result: dict[str, object] = {"user_id": caller.user_id, "agent_id": caller.agent_id}
        if agent is not None:
            result |= {"name": cut(agent.name, _NAME), "own_room_id": agent.room_id}
        if caller.place is not None:
            here = {"room_id": caller.place.room_id}
            here |= {"thread": caller.place.thread_id} if caller.place.thread_id else {}
            result["here"] = here
        result["scopes"] = sorted(str(scope) for scope in principal.scopes)
        result["destructive"] = principal.destructive
        if principal.rooms is not None:
            result["rooms"] = sorted(principal.rooms)[:_MOST_TOLD]
        return result

    async def _room(self, intent: Intent, room_id: str, with_members: bool) -> dict[str, object]:
        card = await self._known.card(intent, room_id)
        room: dict[str, object] = {
            "room_id": room_id,
            "name": cut(card.title(intent.user_id), _NAME),
        }
        if card.alias:
            room["alias"] = cut(card.alias, 255)
        if with_members:
            joined = await intent.joined_members(room_id)
            some = [self._member(who, joined[who]) for who in sorted(joined)[:_MOST_MEMBERS]]
            room["members"] = shown = first_of(some, _MEMBERS_BYTES)
            room |= {"joined": len(joined)} if len(shown) < len(joined) else {}
        return room

    def _member(self, user_id: str, name: str) -> dict[str, object]:
        member: dict[str, object] = {"user_id": user_id, "name": cut(name, _NAME)}
        agent = self._directory.by_user(user_id)
        return member | ({"agent_id": agent.agent_id} if agent else {})
