"""Tools that say something in a room."""

from collections.abc import Mapping
from typing import Any

from mautrix.errors import MNotFound
from pydantic import Field

from letta_matrix.matrix.content import edit_measure, text_content, thread_relation
from letta_matrix.matrix.events import mapping
from letta_matrix.matrix.formatting import clean_text
from letta_matrix.matrix.splitting import split
from letta_matrix.toolbox.faults import ToolError
from letta_matrix.toolbox.naming import room_of
from letta_matrix.toolbox.principal import Scope
from letta_matrix.toolbox.tool import (
    Caller,
    EventId,
    Line,
    Markdown,
    Result,
    RoomRef,
    Tool,
    WriteParams,
)

GIVE_UP_AFTER = 20.0
"""Seconds that a write is tried while the homeserver does not answer."""

ROOM = "room id (!...), alias (#...), or the exact name of one of your rooms"


class SendMessage(WriteParams):
    room_id: RoomRef = Field(description=ROOM)
    message: Markdown = Field(description="what to say, as Markdown")


class ReplyInThread(WriteParams):
    room_id: RoomRef = Field(description=ROOM)
    event_id: EventId = Field(description="message to reply to ($...)")
    message: Markdown = Field(description="what to say, as Markdown")


class React(WriteParams):
    room_id: RoomRef = Field(description=ROOM)
    event_id: EventId = Field(description="message to react to ($...)")
    key: Line = Field(max_length=64, description="an emoji, such as 👍")


def writing_tools() -> list[Tool[Any]]:
    return [
        Tool(
            "matrix_send_message",
            "Send a message",
            "Send a Markdown message to a Matrix room you are in.",
            Scope.WRITE,
            SendMessage,
            dict,
            send_message,
        ),
        Tool(
            "matrix_reply_in_thread",
            "Reply in a thread",
            "Reply to a message in its thread, which begins there if it has none.",
            Scope.WRITE,
            ReplyInThread,
            dict,
            reply_in_thread,
        ),
        Tool(
            "matrix_react",
            "React to a message",
            "React to a message of one of your rooms with an emoji.",
            Scope.WRITE,
            React,
            dict,
            react,
            idempotent=True,
        ),
    ]


async def send_message(caller: Caller, params: SendMessage) -> Result:
    async with room_of(caller, params.room_id) as room_id:
        return await _say(caller, room_id, params.message, "matrix_send_message")


async def reply_in_thread(caller: Caller, params: ReplyInThread) -> Result:
    async with room_of(caller, params.room_id) as room_id:
        event = await _existing(caller, room_id, params.event_id)
        relation = mapping(mapping(event.get("content")).get("m.relates_to"))
        in_thread = relation.get("rel_type") == "m.thread"
        root = str(relation.get("event_id")) if in_thread else params.event_id
        thread = thread_relation(root, params.event_id)
        return await _say(caller, room_id, params.message, "matrix_reply_in_thread", thread)


async def react(caller: Caller, params: React) -> Result:
    async with room_of(caller, params.room_id) as room_id:
        await _existing(caller, room_id, params.event_id)
        txn = caller.txn("matrix_react")
        await caller.intent.react(room_id, params.event_id, params.key, txn)
        return {"room_id": room_id, "event_id": params.event_id, "key": params.key}


def spoken(message: str) -> str:
    """What is left of a message once it is fit to be shown. Raises ToolError for nothing."""
    text = clean_text(message)
    if not text.strip():
        raise ToolError("`message` has no text in it.")
    return text


async def _existing(caller: Caller, room_id: str, event_id: str) -> Mapping[str, Any]:
    try:
        return await caller.intent.event(room_id, event_id)
    except MNotFound as error:
        if room_id in await caller.intent.joined_rooms():
            raise ToolError(f"There is no message {event_id} in {room_id}.") from error
        raise


async def _say(
    caller: Caller,
    room_id: str,
    message: str,
    tool: str,
    relation: Mapping[str, object] | None = None,
) -> Result:
    """Send a message, in several parts if it is long; each at most once."""
    marker = {"agent_id": caller.agent_id, "tool": tool, "txn": caller.txn(tool, 0)}
    sent: list[str] = []
    for number, part in enumerate(split(spoken(message), measure=edit_measure(marker))):
        txn = caller.txn(tool, number)
        content = text_content(part, marker={**marker, "txn": txn}, relation=relation)
        sent.append(await send_once(caller, room_id, content, txn))
    return {"room_id": room_id, "event_id": sent[0]} | (
        {"more_event_ids": sent[1:]} if sent[1:] else {}
    )


async def send_once(caller: Caller, room_id: str, content: Mapping[str, object], txn: str) -> str:
    """Send a message unless the same call has sent it before; returns its event id."""
    return await caller.intent.send(
        room_id, "m.room.message", content, txn, give_up_after=GIVE_UP_AFTER, look_first=True
    )
