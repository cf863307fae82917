"""Tools that make a room, once, and put rooms into spaces."""

from typing import Any, NotRequired

from mautrix.errors import MatrixRequestError
from pydantic import Field
from typing_extensions import TypedDict

from letta_matrix.access.faults import Fault, ToolError
from letta_matrix.access.principal import Scope
from letta_matrix.common.json_fields import mapping
from letta_matrix.common.side_by_side import side_by_side
from letta_matrix.matrix.content import MARKER
from letta_matrix.matrix.errors import refusal
from letta_matrix.matrix.intent import Intent
from letta_matrix.operations.toolbox.arguments import ROOM, OptionalRoom, RoomRef, Words
from letta_matrix.operations.toolbox.membership_tools import invite_to
from letta_matrix.operations.toolbox.naming import living_room
from letta_matrix.operations.toolbox.results import OfRoom, cut, filled
from letta_matrix.operations.toolbox.tool import Caller, Line, Result, UserRef, WriteParams, tool
from letta_matrix.operations.toolbox.writing import marker_of

_SECONDS = 120.0
"""A call may take so long: all who are invited come one by one."""

_TOOL = "matrix_create_room"


class CreateRoom(WriteParams):
    name: Line = Field(max_length=255, description="the room's name")
    topic: Words = Field("", max_length=1_000, description="what it is for")
    is_public: bool = Field(False, description="anybody may join; else by invitation only")
    invite: list[UserRef] = Field(
        default_factory=list[str], max_length=20, description="Matrix user ids to invite"
    )
    in_space: OptionalRoom = Field(
        "", description="id, alias or exact name of a space to add it to"
    )


class NotInvited(TypedDict):
    user_id: str
    reason: str


class Created(OfRoom):
    """`note` tells why it does not stand in the space."""

    invited: NotRequired[list[str]]
    not_invited: NotRequired[list[NotInvited]]
    space_id: NotRequired[str]
    note: NotRequired[str]


class AddToSpace(WriteParams):
    space_id: RoomRef = Field(description="id, alias or exact name of the space")
    room_id: RoomRef = Field(description=ROOM)


class InSpace(OfRoom):
    """`note` tells why the room itself does not name the space; it stands there all the same."""

    space_id: str
    note: NotRequired[str]


@tool(_TOOL, "Create a room", Scope.ROOMS, Created, seconds=_SECONDS)
async def create_room(caller: Caller, params: CreateRoom) -> Result:
    """Create a Matrix room, invite people and agents to it, put it into a space."""
    if caller.principal.rooms is not None:
        raise ToolError(
            "Your token is limited to its rooms, so you cannot create others.", Fault.FORBIDDEN
        )
    space_id = await _space_of(caller, params.in_space) if params.in_space else ""
    room_id = await _made(caller) if caller.again else None
    room_id = room_id or await _make(caller, params)
    invited, refused = await _invite(caller, room_id, params.invite)
    await caller.house.membership.entered(caller.intent, room_id)
    told = filled(room_id=room_id, invited=invited, not_invited=refused)
    return told | (await _put_into(caller, space_id, room_id) if space_id else {})


@tool("matrix_add_to_space", "Add a room to a space", Scope.ROOMS, InSpace, idempotent=True)
async def add_to_space(caller: Caller, params: AddToSpace) -> Result:
    """Put a Matrix room you are in into a space you may change."""
    async with living_room(caller, params.room_id) as room_id:
        pass
    async with living_room(caller, params.space_id) as space_id:
        await _check_space(caller.intent, params.space_id, space_id)
        if space_id == room_id:
            raise ToolError("A space cannot stand in itself.")
        why_not = await _link(caller.intent, space_id, room_id)
    result = {"space_id": space_id, "room_id": room_id}
    return result | ({"note": f"The room does not name the space: {why_not}."} if why_not else {})


async def _invite(
    caller: Caller, room_id: str, user_ids: list[str]
) -> tuple[list[str], list[NotInvited]]:
    """Who could be invited, and who could not and why: the room stands without them."""

    async def why_not(user_id: str) -> str:
        try:
            await invite_to(caller, room_id, user_id)
        except (ToolError, MatrixRequestError) as error:
            return str(error) if isinstance(error, ToolError) else refusal(error)
        return ""

    wanted = [one for one in dict.fromkeys(user_ids) if one != caller.user_id]
    domain = caller.house.config.homeserver.domain
    here = [one for one in wanted if one.partition(":")[2] == domain]
    elsewhere = [one for one in wanted if one not in here]
    told = dict[str, str]()
    # Whose server does not answer keeps nobody waiting who is of ours: Synapse takes the
    # invitations into a room one after the other, in the order they come in.
    for some in (here, elsewhere):
        told |= zip(some, await side_by_side(why_not, some), strict=True)
    refused: list[NotInvited] = [
        {"user_id": one, "reason": cut(told[one], 100)} for one in wanted if told[one]
    ]
    return [one for one in wanted if not told[one]], refused


async def _make(caller: Caller, params: CreateRoom) -> str:
    """Matrix has no transaction ids for new rooms: the room itself carries ours."""

    async def recover() -> dict[str, str] | None:
        found = await _made(caller)
        return {"room_id": found} if found else None

    content: dict[str, Any] = {
        "name": params.name,
        "preset": "public_chat" if params.is_public else "private_chat",
        "visibility": "private",
        "creation_content": {MARKER: marker_of(caller, _TOOL, caller.txn(_TOOL))},
    }
    content |= {"topic": params.topic} if params.topic else {}
    return await caller.intent.create_room(content, recover=recover)


async def _made(caller: Caller) -> str | None:
    """The room that an earlier try of this call has made."""

    async def made_by(room_id: str) -> str:
        create = await caller.intent.state(room_id, "m.room.create")
        return str(mapping(create.get(MARKER)).get("txn"))

    room_ids = await caller.intent.joined_rooms()
    made = dict(zip(await side_by_side(made_by, room_ids), room_ids, strict=True))
    return made.get(caller.txn(_TOOL))


async def _put_into(caller: Caller, space_id: str, room_id: str) -> dict[str, object]:
    try:
        await _link(caller.intent, space_id, room_id)
    except MatrixRequestError as error:
        return {"note": f"It does not stand in the space: {cut(refusal(error), 200)}."}
    return {"space_id": space_id}


async def _space_of(caller: Caller, ref: str) -> str:
    """The id of the space that `ref` names. Raises ToolError if it is none."""
    async with living_room(caller, ref) as space_id:
        await _check_space(caller.intent, ref, space_id)
        return space_id


async def _link(intent: Intent, space_id: str, room_id: str) -> str:
    """Make a room a child of a space, and the space its parent if that is permitted (spec:
    Spaces); why it is not, "" if it is. Raises MatrixRequestError if it is no child."""
    via = {"via": [intent.user_id.partition(":")[2]]}
    if not (await intent.state(space_id, "m.space.child", room_id)).get("via"):
        await intent.set_state(space_id, "m.space.child", via, room_id)
    try:
        if not (await intent.state(room_id, "m.space.parent", space_id)).get("via"):
            await intent.set_state(room_id, "m.space.parent", via, space_id)
    except MatrixRequestError as error:
        return cut(refusal(error), 200)
    return ""


async def _check_space(intent: Intent, ref: str, room_id: str) -> None:
    if (await intent.state(room_id, "m.room.create")).get("type") != "m.space":
        raise ToolError(f"{ref} is no space.", Fault.CONFLICT)
