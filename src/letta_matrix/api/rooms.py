"""Rooms: which there are, who is in them, and changing them."""

from typing import Annotated, Any

from fastapi import Query
from pydantic import ConfigDict, Field

from letta_matrix.api.calling import IdempotencyKey, Json, call, given_once
from letta_matrix.api.paths import RoomOfPath
from letta_matrix.api.problems import FROM_TOOLS
from letta_matrix.api.routing import WriteBody, router_for
from letta_matrix.api.security import Api, Holder
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
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [dict[str, Any](name="Plans", invite=[_USER])]},
    )

    name: str = Field(min_length=1, max_length=255)
    topic: str = Field("", max_length=1_000, description="what it is for")
    is_public: bool = Field(False, description="anybody may join; else by invitation only")
    invite: list[UserRef] = Field(
        default_factory=list[str], max_length=50, description="Matrix user ids"
    )
    alias: str = Field("", max_length=100, description="`plans` makes #plans:server")
    in_space: str = Field(
        "", max_length=255, description="id, alias or exact name of a space to add it to"
    )


class RoomChange(WriteBody):
    """Only what is given changes."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"topic": "What comes next"}]}
    )

    name: str | None = Field(None, max_length=255, description='"" for none')
    topic: str | None = Field(None, max_length=1_000, description='"" for none')
    avatar: str | None = Field(
        None, max_length=255, description='mxc:// URI of an uploaded image; "" for none'
    )


class Somebody(WriteBody):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"user_id": _USER}]})

    user_id: UserRef = Field(description="Matrix user id")
    reason: str = Field("", max_length=500, description="shown to them and to the room")


@router.get("/rooms", response_model=RoomList, responses=FROM_TOOLS)
async def list_rooms(
    holder: Holder,
    api: Api,
    include_members: Annotated[bool, Query(description="also tell who is in them")] = False,
    after: Next = 0,
) -> Json:
    """List the rooms you are in."""
    wanted = {"include_members": include_members, "after": after}
    return Json(await call(api, holder, "matrix_list_rooms", wanted))


@router.post("/rooms", status_code=201, response_model=Created, responses=FROM_TOOLS)
async def create_room(holder: Holder, api: Api, body: NewRoom, key: IdempotencyKey = "") -> Json:
    """Create a room and invite people and agents to it."""
    wanted = body.model_dump(exclude={"transaction_id"}, exclude_unset=True)
    once = given_once(body.transaction_id, key)
    return Json(await call(api, holder, "matrix_create_room", wanted, once), 201)


@router.get("/rooms/{room}", response_model=RoomInfo, responses=FROM_TOOLS)
async def get_room(holder: Holder, api: Api, room: RoomOfPath) -> Json:
    """Tell about a room you are in: names, rules, power, what replaced it."""
    return Json(await call(api, holder, "matrix_get_room", {"room_id": room}))


@router.patch("/rooms/{room}", response_model=RoomSet, responses=FROM_TOOLS)
async def change_room(
    holder: Holder, api: Api, room: RoomOfPath, body: RoomChange, key: IdempotencyKey = ""
) -> Json:
    """Change a room's name, topic or avatar."""
    wanted = body.model_dump(exclude={"transaction_id"}, exclude_none=True)
    once = given_once(body.transaction_id, key)
    return Json(await call(api, holder, "matrix_set_room", {"room_id": room, **wanted}, once))


@router.get("/rooms/{room}/members", response_model=MemberList, responses=FROM_TOOLS)
async def list_members(holder: Holder, api: Api, room: RoomOfPath, after: Next = 0) -> Json:
    """List who is in a room."""
    wanted = {"room_id": room, "after": after}
    return Json(await call(api, holder, "matrix_list_members", wanted))


@router.post("/rooms/{room}/join", response_model=Joined, responses=FROM_TOOLS)
async def join_room(holder: Holder, api: Api, room: RoomOfPath, key: IdempotencyKey = "") -> Json:
    """Join a room, named by id or alias, that you are invited to or that is open."""
    wanted = {"room_id_or_alias": room}
    return Json(await call(api, holder, "matrix_join_room", wanted, key))


@router.post("/rooms/{room}/leave", response_model=MembershipResult, responses=FROM_TOOLS)
async def leave_room(holder: Holder, api: Api, room: RoomOfPath, key: IdempotencyKey = "") -> Json:
    """Leave a room, or decline an invitation to it."""
    return Json(await call(api, holder, "matrix_leave", {"room_id": room}, key))


@router.post("/rooms/{room}/invite", response_model=MembershipResult, responses=FROM_TOOLS)
async def invite_user(
    holder: Holder, api: Api, room: RoomOfPath, body: Somebody, key: IdempotencyKey = ""
) -> Json:
    """Invite a person or an agent to a room; agents come at once."""
    return Json(await call(api, holder, "matrix_invite", *_about(room, body, key)))


@router.post("/rooms/{room}/kick", response_model=MembershipResult, responses=FROM_TOOLS)
async def kick_user(
    holder: Holder, api: Api, room: RoomOfPath, body: Somebody, key: IdempotencyKey = ""
) -> Json:
    """Remove somebody from a room."""
    return Json(await call(api, holder, "matrix_kick", *_about(room, body, key)))


@router.post("/rooms/{room}/ban", response_model=MembershipResult, responses=FROM_TOOLS)
async def ban_user(
    holder: Holder, api: Api, room: RoomOfPath, body: Somebody, key: IdempotencyKey = ""
) -> Json:
    """Remove somebody from a room for good."""
    return Json(await call(api, holder, "matrix_ban", *_about(room, body, key)))


@router.post("/rooms/{room}/unban", response_model=MembershipResult, responses=FROM_TOOLS)
async def unban_user(
    holder: Holder, api: Api, room: RoomOfPath, body: Somebody, key: IdempotencyKey = ""
) -> Json:
    """Let somebody who is banned from a room be invited to it again."""
    return Json(await call(api, holder, "matrix_unban", *_about(room, body, key)))


def _about(room: str, body: Somebody, key: str) -> tuple[dict[str, object], str]:
    wanted: dict[str, object] = {"room_id": room, "user_id": body.user_id, "reason": body.reason}
    return wanted, given_once(body.transaction_id, key)
