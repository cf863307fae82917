"""Tools that tell who and where the caller is: its rooms, who is in them, who somebody is."""

from typing import NotRequired

from mautrix.errors import MatrixRequestError
from pydantic import Field
from typing_extensions import TypedDict

from letta_matrix.access.faults import Fault, ToolError
from letta_matrix.access.principal import Scope
from letta_matrix.common.side_by_side import side_by_side
from letta_matrix.matrix.formatting import clean_text
from letta_matrix.operations.toolbox.arguments import After, RoomParams
from letta_matrix.operations.toolbox.naming import not_in, room_of
from letta_matrix.operations.toolbox.results import (
    UNTRUSTED,
    OfRoom,
    Page,
    Untrusted,
    cut,
    filled,
    first_of,
    fit_items,
)
from letta_matrix.operations.toolbox.tool import Caller, Params, Result, UserRef, tool

_MOST_ROOMS = 50
_MOST_TOLD = 100
"""Rooms of a limited token that are named."""

_MOST_MEMBERS, _MEMBERS_BYTES = 20, 4_000
"""Members told of each room in a list of rooms."""

_NAME = 200
_ADDRESS = 500


class ListRooms(Params):
    include_members: bool = Field(False, description="also tell some who are in them")
    after: After = 0


class ListMembers(RoomParams):
    after: After = 0


class GetProfile(Params):
    user_id: UserRef = Field(description="the user (@name:server)")


class Member(TypedDict):
    """Who is in a room; `agent_id` if it is an agent here."""

    user_id: str
    name: str
    agent_id: NotRequired[str]


class Room(OfRoom):
    """A room the caller is in. A room without a name is called after the others in it. `joined`
    is how many there are where `members` are not all; matrix_list_members has the rest."""

    name: str
    alias: NotRequired[str]
    members: NotRequired[list[Member]]
    joined: NotRequired[int]


class RoomList(Page):
    rooms: list[Room]


class MemberList(OfRoom, Page):
    members: list[Member]


class Here(OfRoom):
    """Where the caller is talking now."""

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


class Profile(Untrusted):
    """Who a user is; `agent_id` if it is an agent that the caller may know of."""

    user_id: str
    name: NotRequired[str]
    avatar: NotRequired[str]
    agent_id: NotRequired[str]


@tool("matrix_list_rooms", "List rooms", Scope.READ, RoomList, read_only=True)
async def list_rooms(caller: Caller, params: ListRooms) -> Result:
    """List the Matrix rooms you are in."""

    async def told(room_id: str) -> dict[str, object]:
        return await _room(caller, room_id, params.include_members)

    everywhere = sorted(await caller.rooms())
    room_ids = everywhere[params.after : params.after + _MOST_ROOMS]
    rooms = await side_by_side(told, room_ids)
    return fit_items(UNTRUSTED, "rooms", rooms, params.after, len(everywhere))


@tool("matrix_list_members", "List members", Scope.READ, MemberList, read_only=True)
async def list_members(caller: Caller, params: ListMembers) -> Result:
    """List who is in a Matrix room you are in."""
    async with room_of(caller, params.room_id) as room_id:
        joined = await caller.intent.joined_members(room_id)
    if caller.user_id not in joined:
        raise not_in(caller, params.room_id)
    shown = [_member(caller, *one) for one in sorted(joined.items())[params.after :]]
    rest = {"room_id": room_id, **UNTRUSTED}
    return fit_items(rest, "members", shown, params.after, len(joined))


@tool("matrix_whoami", "Who am I", Scope.READ, Self, read_only=True)
async def whoami(caller: Caller, _params: Params) -> Result:
    """Tell your own Matrix user id, your room, and the room you are talking in now."""
    principal, place = caller.principal, caller.place
    result: dict[str, object] = {"user_id": caller.user_id, "agent_id": caller.agent_id}
    if (agent := caller.house.directory.get(caller.agent_id)) is not None:
        result |= {"name": cut(agent.name, _NAME), "own_room_id": agent.room_id}
    if place is not None:
        result["here"] = filled(room_id=place.room_id, thread=place.thread_id)
    result["scopes"] = sorted(str(scope) for scope in principal.scopes)
    result["destructive"] = principal.destructive
    if principal.rooms is not None:
        result["rooms"] = sorted(principal.rooms)[:_MOST_TOLD]
    return result


@tool("matrix_get_profile", "Get a profile", Scope.READ, Profile, read_only=True)
async def get_profile(caller: Caller, params: GetProfile) -> Result:
    """Tell a Matrix user's display name and avatar, and whether it is an agent."""
    try:
        told = await caller.intent.profile(params.user_id)
    except MatrixRequestError as error:
        if error.http_status != 404:
            raise
        raise ToolError(f"There is no user {params.user_id}.", Fault.NOT_FOUND) from error
    profile: dict[str, object] = {"user_id": params.user_id, **UNTRUSTED}
    name, avatar = told.get("displayname"), told.get("avatar_url")
    profile |= {"name": cut(clean_text(name), _NAME)} if isinstance(name, str) else {}
    profile |= {"avatar": cut(avatar, _ADDRESS)} if isinstance(avatar, str) else {}
    agents = (one.agent_id for one in caller.agents() if one.user_id == params.user_id)
    return profile | filled(agent_id=next(agents, None))


async def _room(caller: Caller, room_id: str, with_members: bool) -> dict[str, object]:
    card = await caller.house.known.card(caller.intent, room_id)
    title = cut(card.title(caller.user_id), _NAME)
    room = {"room_id": room_id, "name": title, **filled(alias=cut(card.alias, 255))}
    if not with_members:
        return room
    joined = await caller.intent.joined_members(room_id)
    some = [_member(caller, *one) for one in sorted(joined.items())[:_MOST_MEMBERS]]
    shown = first_of(some, _MEMBERS_BYTES)
    return {**room, "members": shown} | (
        {"joined": len(joined)} if len(shown) < len(joined) else {}
    )


def _member(caller: Caller, user_id: str, name: str) -> dict[str, object]:
    agent = caller.house.directory.by_user(user_id)
    member = {"user_id": user_id, "name": cut(name, _NAME)}
    return member | filled(agent_id=agent and agent.agent_id)
