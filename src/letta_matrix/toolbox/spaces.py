"""The tool that puts rooms into spaces."""

from typing import NotRequired

from mautrix.errors import MatrixRequestError
from pydantic import Field
from typing_extensions import TypedDict

from letta_matrix.access.faults import Fault, ToolError
from letta_matrix.access.principal import Scope
from letta_matrix.matrix.errors import refusal
from letta_matrix.matrix.intent import Intent
from letta_matrix.toolbox.naming import living_room
from letta_matrix.toolbox.results import cut
from letta_matrix.toolbox.tool import ROOM, Caller, Result, RoomRef, WriteParams, tool


class AddToSpace(WriteParams):
    space_id: RoomRef = Field(description="id, alias or exact name of the space")
    room_id: RoomRef = Field(description=ROOM)


class InSpace(TypedDict):
    """`note` tells why the room itself does not name the space; it stands there all the same."""

    space_id: str
    room_id: str
    note: NotRequired[str]


@tool("matrix_add_to_space", "Add a room to a space", Scope.ROOMS, InSpace, idempotent=True)
async def add_to_space(caller: Caller, params: AddToSpace) -> Result:
    """Put a Matrix room you are in into a space you may change."""
    async with living_room(caller, params.room_id) as room_id:
        pass
    async with living_room(caller, params.space_id) as space_id:
        await _check_space(caller.intent, params.space_id, space_id)
        if space_id == room_id:
            raise ToolError("A space cannot stand in itself.")
        why_not = await link(caller.intent, space_id, room_id)
    result = {"space_id": space_id, "room_id": room_id}
    return result | ({"note": f"The room does not name the space: {why_not}."} if why_not else {})


async def space_of(caller: Caller, ref: str) -> str:
    """The id of the space that `ref` names. Raises ToolError if it is none."""
    async with living_room(caller, ref) as space_id:
        await _check_space(caller.intent, ref, space_id)
        return space_id


async def link(intent: Intent, space_id: str, room_id: str) -> str:
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
