"""Tools that show others what the caller is doing: typing, and how far it has read."""

from typing import NotRequired

from pydantic import Field

from letta_matrix.access.faults import Fault, ToolError
from letta_matrix.access.principal import Scope
from letta_matrix.operations.toolbox.arguments import OptionalEvent, RoomWriteParams
from letta_matrix.operations.toolbox.naming import not_in, room_of, writable_room
from letta_matrix.operations.toolbox.results import OfEvent, OfRoom, filled
from letta_matrix.operations.toolbox.tool import Caller, Result, tool
from letta_matrix.operations.toolbox.writing import existing


class SetTyping(RoomWriteParams):
    typing: bool = Field(True, description="false: stop")
    seconds: int = Field(30, ge=1, le=120, description="how long, unless stopped")


class MarkRead(RoomWriteParams):
    event_id: OptionalEvent = Field("", description="last message read; default: the newest")
    private: bool = Field(False, description="show others no read receipt")


class Typing(OfRoom):
    typing: bool
    seconds: NotRequired[int]


@tool("matrix_set_typing", "Show as typing", Scope.WRITE, Typing, idempotent=True)
async def set_typing(caller: Caller, params: SetTyping) -> Result:
    """Show in a room that you are typing, or stop showing it."""
    async with writable_room(caller, params.room_id) as room_id:
        await caller.intent.typing(room_id, params.seconds * 1000 if params.typing else 0)
    shown = {"room_id": room_id, "typing": params.typing}
    return shown | filled(seconds=params.typing and params.seconds)


@tool("matrix_mark_read", "Mark as read", Scope.WRITE, OfEvent, idempotent=True)
async def mark_read(caller: Caller, params: MarkRead) -> Result:
    """Mark a room as read, up to a message or wholly."""
    async with room_of(caller, params.room_id) as room_id:
        event_id = params.event_id or await _newest(caller, params.room_id, room_id)
        if params.event_id:
            await existing(caller, room_id, event_id)
        # Whoever talks from another network is told of that by the bridge alone.
        private = params.private or caller.house.is_portal(room_id)
        await caller.intent.mark_read(room_id, event_id, private=private)
    return {"room_id": room_id, "event_id": event_id}


async def _newest(caller: Caller, ref: str, room_id: str) -> str:
    # The history of a room that was left can still be read.
    if room_id not in await caller.intent.joined_rooms():
        raise not_in(caller, ref)
    page = await caller.intent.messages(room_id, limit=1)
    if not page.events:
        raise ToolError(f"There is nothing in {room_id} yet.", Fault.NOT_FOUND)
    return str(page.events[0].get("event_id"))
