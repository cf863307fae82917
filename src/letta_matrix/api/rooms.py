"""Rooms: which there are, who is in them, and changing them."""

from typing import Annotated

from fastapi import Query
from pydantic import Field

from letta_matrix.api.passing import passing
from letta_matrix.api.paths import RoomOfPath
from letta_matrix.api.routing import WriteBody, router_for
from letta_matrix.toolbox.guests import Joined, MembershipResult
from letta_matrix.toolbox.reading import MemberList, RoomList
from letta_matrix.toolbox.room_info import RoomInfo
from letta_matrix.toolbox.room_making import Created
from letta_matrix.toolbox.room_settings import RoomSet
from letta_matrix.toolbox.tool import UserRef

router = router_for("rooms")

_USER = "@ann:example.org"
Next = Annotated[int, Query(ge=0, description="`next` of an earlier answer, to go on")]


class NewRoom(WriteBody):
    name: str = Field(min_length=1, max_length=255)
    topic: str = Field("", max_length=1_000, description="what it is for")
    is_public: bool = Field(False, description="anybody may join; else by invitation only")
    invite: list[UserRef] = Field(
        default_factory=list[str], max_length=20, description="Matrix user ids"
    )
    in_space: str = Field(
        "", max_length=255, description="id, alias or exact name of a space to add it to"
    )


class RoomChange(WriteBody):
    """Only what is given changes."""

    name: str | None = Field(None, max_length=255, description='"" for none')
    topic: str | None = Field(None, max_length=1_000, description='"" for none')
    avatar: str | None = Field(
        None, max_length=255, description='mxc:// URI of an uploaded image; "" for none'
    )


class Somebody(WriteBody):
    user_id: UserRef = Field(description="Matrix user id")
    reason: str = Field("", max_length=500, description="shown to them and to the room")


@passing(router, "GET", "/rooms", "matrix_list_rooms", RoomList)
def list_rooms(
    include_members: Annotated[bool, Query(description="also tell who is in them")] = False,
    after: Next = 0,
) -> None:
    """List the rooms you are in."""


@passing(router, "POST", "/rooms", "matrix_create_room", Created, status=201)
def create_room(body: NewRoom) -> None:
    """Create a room and invite people and agents to it."""


@passing(router, "GET", "/rooms/{room}", "matrix_get_room", RoomInfo)
def get_room(room: RoomOfPath) -> None:
    """Tell about a room you are in: names, rules, power, what replaced it."""


@passing(router, "PATCH", "/rooms/{room}", "matrix_set_room", RoomSet)
def change_room(room: RoomOfPath, body: RoomChange) -> None:
    """Change a room's name, topic or avatar."""


@passing(router, "GET", "/rooms/{room}/members", "matrix_list_members", MemberList)
def list_members(room: RoomOfPath, after: Next = 0) -> None:
    """List who is in a room."""


@passing(
    router,
    "POST",
    "/rooms/{room}/join",
    "matrix_join_room",
    Joined,
    renamed={"room": "room_id_or_alias"},
)
def join_room(room: RoomOfPath) -> None:
    """Join a room, named by id or alias, that you are invited to or that is open."""


@passing(router, "POST", "/rooms/{room}/leave", "matrix_leave", MembershipResult)
def leave_room(room: RoomOfPath) -> None:
    """Leave a room, or decline an invitation to it."""


@passing(router, "POST", "/rooms/{room}/invite", "matrix_invite", MembershipResult)
def invite_user(room: RoomOfPath, body: Somebody) -> None:
    """Invite a person or an agent to a room; agents come at once."""


@passing(router, "POST", "/rooms/{room}/kick", "matrix_kick", MembershipResult)
def kick_user(room: RoomOfPath, body: Somebody) -> None:
    """Remove somebody from a room."""


@passing(router, "POST", "/rooms/{room}/ban", "matrix_ban", MembershipResult)
def ban_user(room: RoomOfPath, body: Somebody) -> None:
    """Remove somebody from a room for good."""


@passing(router, "POST", "/rooms/{room}/unban", "matrix_unban", MembershipResult)
def unban_user(room: RoomOfPath, body: Somebody) -> None:
    """Let somebody who is banned from a room be invited to it again."""
