"""Tools that change or remove what was said."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from pydantic import Field

from letta_matrix.access.faults import Fault, ToolError
from letta_matrix.access.principal import Scope
from letta_matrix.common.json_fields import mapping
from letta_matrix.matrix.content import edit_content
from letta_matrix.matrix.events import Event
from letta_matrix.matrix.formatting import clean_text
from letta_matrix.operations.toolbox.arguments import RoomWriteParams
from letta_matrix.operations.toolbox.naming import writable_room
from letta_matrix.operations.toolbox.results import OfEvent
from letta_matrix.operations.toolbox.tool import Caller, EventId, Markdown, Result, tool
from letta_matrix.operations.toolbox.writing import (
    GIVE_UP_AFTER,
    existing,
    fitting,
    leave_alone,
    marker_of,
    send_once,
    spoken,
)

_TEXTS = ("m.text", "m.notice", "m.emote")


class EditMessage(RoomWriteParams):
    event_id: EventId = Field(description="your message ($...)")
    message: Markdown = Field(description="what it shall say now, as Markdown")


class Redact(RoomWriteParams):
    event_id: EventId = Field(description="what to remove ($...)")
    reason: str = Field("", max_length=500)


class Edited(OfEvent):
    """`event_id` is still the message's own; `edit_event_id` that of the change."""

    edit_event_id: str


class Redacted(OfEvent):
    redaction_event_id: str


@tool("matrix_edit_message", "Edit a message", Scope.WRITE, Edited)
async def edit_message(caller: Caller, params: EditMessage) -> Result:
    """Replace the text of a message that you sent."""
    text, txn = spoken(params.message), caller.txn("matrix_edit_message")
    async with writable_room(caller, params.room_id) as room_id:
        event_id, original = await _original(caller, room_id, params.event_id)
        _check_editable(caller, event_id, original)
        leave_alone(original)
        make = partial(
            edit_content,
            text,
            target_event_id=event_id,
            marker=marker_of(caller, "matrix_edit_message", txn),
            msgtype=str(mapping(original.get("content")).get("msgtype")),
        )
        why = "`message` is too long for an edit, which is one message; shorten it."
        content = await fitting(text, make, why, copies=2)
        edit_event_id = await send_once(caller, room_id, content, txn)
        return {"room_id": room_id, "event_id": event_id, "edit_event_id": edit_event_id}


@tool("matrix_redact", "Remove a message", Scope.WRITE, Redacted, destructive=True, idempotent=True)
async def redact(caller: Caller, params: Redact) -> Result:
    """Remove a message for good: your own, or another's if you have the power to."""
    async with writable_room(caller, params.room_id) as room_id:
        event = await existing(caller, room_id, params.event_id)
        leave_alone(event)
        if edited := Event(event).edited:
            leave_alone(await existing(caller, room_id, edited))
        before = mapping(mapping(event.get("unsigned")).get("redacted_because")).get("event_id")
        redaction = before or await caller.intent.redact(
            room_id,
            params.event_id,
            caller.txn("matrix_redact"),
            clean_text(params.reason).strip(),
            give_up_after=GIVE_UP_AFTER,
        )
        told = {"room_id": room_id, "event_id": params.event_id}
        return {**told, "redaction_event_id": str(redaction)}


async def _original(caller: Caller, room_id: str, event_id: str) -> tuple[str, Mapping[str, Any]]:
    """The message that an id means, which may be that of an edit (spec: Event replacements)."""
    event = await existing(caller, room_id, event_id)
    if edited := Event(event).edited:
        return edited, await existing(caller, room_id, edited)
    return event_id, event


def _check_editable(caller: Caller, event_id: str, event: Mapping[str, Any]) -> None:
    if event.get("sender") != caller.user_id:
        raise ToolError(
            f"{event_id} is not yours: only who sent a message can edit it.", Fault.FORBIDDEN
        )
    content = mapping(event.get("content"))
    if not content:
        raise ToolError(f"{event_id} was removed; send a new message.", Fault.NOT_FOUND)
    if event.get("type") != "m.room.message" or content.get("msgtype") not in _TEXTS:
        raise ToolError(f"{event_id} is no text message; only those can be edited.")
