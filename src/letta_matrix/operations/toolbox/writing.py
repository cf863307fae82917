"""Tools that say something in a room."""

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NotRequired

from mautrix.errors import MNotFound
from pydantic import Field

from letta_matrix.access.faults import Fault, ToolError
from letta_matrix.access.principal import Scope
from letta_matrix.common.json_fields import mapping
from letta_matrix.matrix.content import (
    BESIDE,
    LIVE,
    content_size,
    edit_measure,
    reply_relation,
    text_content,
    thread_relation,
)
from letta_matrix.matrix.events import Event
from letta_matrix.matrix.formatting import clean_text
from letta_matrix.matrix.intent import Intent
from letta_matrix.matrix.splitting import CONTENT_LIMIT, split
from letta_matrix.operations.toolbox.arguments import RoomWriteParams
from letta_matrix.operations.toolbox.naming import writable_room
from letta_matrix.operations.toolbox.results import OfEvent, filled
from letta_matrix.operations.toolbox.tool import Caller, EventId, Line, Markdown, Result, tool

GIVE_UP_AFTER = 20.0
"""Seconds that a write is tried while the homeserver does not answer."""

_SHORT = 1_000
"""Characters that fit into one message whatever they are (see `splitting.estimate`)."""


class SendMessage(RoomWriteParams):
    message: Markdown = Field(description="what to say, as Markdown")


class Reply(RoomWriteParams):
    event_id: EventId = Field(description="message to reply to ($...)")
    message: Markdown = Field(description="what to say, as Markdown")


class React(RoomWriteParams):
    event_id: EventId = Field(description="message to react to ($...)")
    key: Line = Field(max_length=64, description="an emoji, such as 👍")


class Sent(OfEvent):
    """A message as it went out; a long one has `more_event_ids`."""

    more_event_ids: NotRequired[list[str]]


class Reacted(OfEvent):
    key: str


@tool("matrix_send_message", "Send a message", Scope.WRITE, Sent)
async def send_message(caller: Caller, params: SendMessage) -> Result:
    """Send a Markdown message to a Matrix room you are in."""
    async with writable_room(caller, params.room_id) as room_id:
        return await _say(caller, room_id, params.message, "matrix_send_message")


@tool("matrix_reply", "Reply to a message", Scope.WRITE, Sent)
async def reply(caller: Caller, params: Reply) -> Result:
    """Reply to a message, quoting it; stays in its thread if it is in one."""
    async with writable_room(caller, params.room_id) as room_id:
        root = Event(await existing(caller, room_id, params.event_id)).thread
        relation = reply_relation(params.event_id, root)
        further = thread_relation(root, params.event_id) if root else None
        return await _say(caller, room_id, params.message, "matrix_reply", relation, further)


@tool("matrix_reply_in_thread", "Reply in a thread", Scope.WRITE, Sent)
async def reply_in_thread(caller: Caller, params: Reply) -> Result:
    """Reply to a message in its thread, which begins there if it has none."""
    async with writable_room(caller, params.room_id) as room_id:
        root = Event(await existing(caller, room_id, params.event_id)).thread or params.event_id
        thread = thread_relation(root, params.event_id)
        tool = "matrix_reply_in_thread"
        return await _say(caller, room_id, params.message, tool, thread, thread)


@tool("matrix_react", "React to a message", Scope.WRITE, Reacted, idempotent=True)
async def react(caller: Caller, params: React) -> Result:
    """React to a message of one of your rooms with an emoji."""
    async with writable_room(caller, params.room_id) as room_id:
        leave_alone(await existing(caller, room_id, params.event_id))
        txn = caller.txn("matrix_react")
        await caller.intent.react(room_id, params.event_id, params.key, txn)
        return {"room_id": room_id, "event_id": params.event_id, "key": params.key}


def spoken(message: str, field: str = "message") -> str:
    """What is left of a text once it is fit to be shown. Raises ToolError for nothing."""
    text = clean_text(message)
    if not text.strip():
        raise ToolError(f"`{field}` has no text in it.")
    return text


async def existing(caller: Caller, room_id: str, event_id: str) -> Mapping[str, Any]:
    """An event of a room. Raises ToolError if there is none that the caller may see."""
    try:
        return await caller.intent.event(room_id, event_id)
    except MNotFound as error:
        if room_id in await caller.intent.joined_rooms():
            text = f"There is no message {event_id} in {room_id}."
            raise ToolError(text, Fault.NOT_FOUND) from error
        raise


def leave_alone(event: Mapping[str, Any]) -> None:
    """Raises ToolError for what the bridge sent for itself: whoever is asked, told of tools or
    answered has to be able to rely on it, whatever an agent may be talked into."""
    sent = Event(event)
    if not sent.marker.get("turn_id"):
        return
    grown = mapping(mapping(sent.relations.get("m.replace")).get("content")) or sent.content
    if sent.marker.get(BESIDE) or sent.content.get("msgtype") == "m.notice" or LIVE in grown:
        what = "is an answer that still grows" if LIVE in grown else "was sent by the bridge itself"
        raise ToolError(
            f"{event.get('event_id')} {what}; tools leave it as it is.", Fault.FORBIDDEN
        )


def marker_of(caller: Caller, tool: str, txn: str) -> dict[str, object]:
    """What tells events of a call from others (DESIGN 3.3)."""
    return {"agent_id": caller.agent_id, "tool": tool, "txn": txn}


async def send_once(
    caller: Caller,
    room_id: str,
    content: Mapping[str, object],
    txn: str,
    event_type: str = "m.room.message",
    *,
    by: Intent | None = None,
) -> str:
    """Send an event, `by` another of our users if given, unless the same call has sent it before;
    returns its event id."""
    return await (by or caller.intent).send(
        room_id, event_type, content, txn, give_up_after=GIVE_UP_AFTER, look_first=caller.again
    )


async def rendered(text: str, make: Callable[[], dict[str, object]]) -> dict[str, object]:
    """The content that `make` makes of a Markdown text. Made to be hard to read, a long one takes
    up to a second: then others go on meanwhile."""
    return make() if len(text) <= _SHORT else await asyncio.to_thread(make)


async def fitting(
    text: str, make: Callable[[], dict[str, object]], why: str, copies: int = 1
) -> dict[str, object]:
    """As `rendered`, for what must be one event, which carries its text `copies` times at least.
    Raises ToolError that says `why` not."""
    if copies * len(text.encode()) <= CONTENT_LIMIT:
        content = await rendered(text, make)
        if content_size(content) <= CONTENT_LIMIT:
            return content
    raise ToolError(why, Fault.TOO_LARGE)


async def _say(
    caller: Caller,
    room_id: str,
    message: str,
    tool: str,
    relation: Mapping[str, object] | None = None,
    further: Mapping[str, object] | None = None,
) -> Result:
    """Send a message, in several parts if it is long; each at most once. `relation` is that of
    the first part, `further` of those after it."""
    sent: list[str] = []
    for number, part in enumerate(await _parts(caller, spoken(message), tool)):
        txn = caller.txn(tool, number)
        marker = marker_of(caller, tool, txn)
        related = further if number else relation
        make = partial(text_content, part, marker=marker, relation=related)
        content = await rendered(part, make)
        sent.append(await send_once(caller, room_id, content, txn))
    return filled(room_id=room_id, event_id=sent[0], more_event_ids=sent[1:])


async def _parts(caller: Caller, text: str, tool: str) -> list[str]:
    if len(text) <= _SHORT:
        return [text]
    measure = edit_measure(marker_of(caller, tool, caller.txn(tool, 0)))
    return await asyncio.to_thread(split, text, measure=measure)
