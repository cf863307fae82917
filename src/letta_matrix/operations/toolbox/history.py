"""Tools that read what was said: the newest, what came around a message, a thread."""

import asyncio
from collections.abc import Awaitable, Sequence
from functools import partial
from typing import Annotated, NotRequired, TypeVar

from mautrix.errors import MatrixRequestError
from pydantic import Field

from letta_matrix.access.faults import Fault, ToolError
from letta_matrix.access.principal import Scope
from letta_matrix.common.json_fields import Json
from letta_matrix.matrix.events import Event
from letta_matrix.matrix.intent import Intent
from letta_matrix.matrix.room_reading import Page
from letta_matrix.operations.toolbox.arguments import RoomParams
from letta_matrix.operations.toolbox.naming import not_in, room_of
from letta_matrix.operations.toolbox.paging import collect
from letta_matrix.operations.toolbox.results import UNTRUSTED, OfRoom, Untrusted, filled, fit_texts
from letta_matrix.operations.toolbox.timeline import FILTER, Message, as_edited, entry, is_message
from letta_matrix.operations.toolbox.tool import Caller, EventId, Result, tool
from letta_matrix.operations.toolbox.writing import existing

NOTE = "Long texts are cut; ask for fewer messages to read more of each."
PLACE = 1000
"""Characters of a place in a room's history, as an earlier answer gave it."""

Before = Annotated[
    str,
    Field(max_length=PLACE, description="`before` of an earlier answer, for older messages"),
]

T = TypeVar("T")


class ReadRoom(RoomParams):
    limit: int = Field(10, ge=1, le=50, description="how many messages")
    before: Before = ""
    after: str = Field(
        "", max_length=PLACE, description="`after` of an earlier answer, for what came since"
    )


class GetContext(RoomParams):
    event_id: EventId = Field(description="the message ($...)")
    around: int = Field(5, ge=0, le=25, description="how many messages before it, and after it")


class ReadThread(RoomParams):
    event_id: EventId = Field(description="the thread's first message ($...), or any in it")
    limit: int = Field(20, ge=1, le=50, description="how many messages")
    before: Before = ""


class Read(OfRoom, Untrusted):
    """Messages, oldest first. `before` leads to older ones."""

    messages: list[Message]
    before: NotRequired[str]
    note: NotRequired[str]


class History(Read):
    """`after` leads to messages that come later."""

    after: NotRequired[str]


class Context(History):
    """Messages around `event_id`, which is among them."""

    event_id: str


class Thread(Read):
    """A thread's messages; `root` is the message it hangs on."""

    thread: str
    root: Message


@tool("matrix_read_room", "Read a room", Scope.READ, History, read_only=True)
async def read_room(caller: Caller, params: ReadRoom) -> Result:
    """Read the newest messages of a Matrix room you are in, oldest first."""
    if params.before and params.after:
        raise ToolError("Give `before` or `after`, not both.")
    async with room_of(caller, params.room_id) as room_id:
        way, place = ("f", params.after) if params.after else ("b", params.before)
        fetch = partial(_page, caller.intent, room_id, way)
        reading = collect(fetch, place, params.limit, way=way)
        read = await _as_member(caller, params.room_id, room_id, reading)
    if params.after:
        return _told(caller, room_id, read.found, after=read.reached)
    newest = "" if params.before else read.start
    return _told(caller, room_id, read.found[::-1], before=read.end, after=newest)


@tool("matrix_get_context", "Get a message in context", Scope.READ, Context, read_only=True)
async def get_context(caller: Caller, params: GetContext) -> Result:
    """Read a message of one of your rooms with what was said before and after it."""
    async with room_of(caller, params.room_id) as room_id:
        reading = _context(caller, room_id, params)
        return await _as_member(caller, params.room_id, room_id, reading)


@tool("matrix_read_thread", "Read a thread", Scope.READ, Thread, read_only=True)
async def read_thread(caller: Caller, params: ReadThread) -> Result:
    """Read a thread of a Matrix room you are in: its root and newest messages."""
    async with room_of(caller, params.room_id) as room_id:
        reading = existing(caller, room_id, params.event_id)
        root = await _as_member(caller, params.room_id, room_id, reading)
        if thread := Event(root).thread:
            root = await existing(caller, room_id, thread)
        root_id = str(root.get("event_id"))

        async def fetch(token: str, limit: int) -> Page:
            return await caller.intent.thread(room_id, root_id, limit=limit, before=token)

        read = await collect(fetch, params.before, params.limit)
    rest = {"room_id": room_id, "thread": root_id, **UNTRUSTED, **filled(before=read.end)}

    def make(length: int) -> dict[str, object]:
        first, *messages = entries(caller, [dict(root), *read.found[::-1]], length)
        return {**rest, "root": first, "messages": messages}

    return fit_texts(make, NOTE)


def entries(caller: Caller, events: Sequence[Json], length: int) -> list[dict[str, object]]:
    """Messages with at most `length` characters of each one's text."""
    names = caller.house.agent_names()
    return [entry(event, names, length) for event in events]


async def _context(caller: Caller, room_id: str, params: GetContext) -> Result:
    try:
        told = await caller.intent.around(
            room_id, params.event_id, limit=2 * params.around, filters=FILTER
        )
    except MatrixRequestError as error:
        if error.http_status == 404:
            raise _unknown(room_id, params.event_id) from error
        raise
    # The specification does not say that it is looked for in this room alone.
    if told.event.get("room_id") != room_id:
        raise _unknown(room_id, params.event_id)
    older, newer = await asyncio.gather(
        _more(caller.intent, room_id, "b", told.before, params.around),
        _more(caller.intent, room_id, "f", told.after, params.around),
    )
    event = as_edited(told.event)
    events = [*older[0][::-1], event, *newer[0]]
    result = _told(caller, room_id, events, before=older[1], after=newer[1])
    return {**result, "event_id": str(event.get("event_id"))}


async def _as_member(caller: Caller, ref: str, room_id: str, reading: Awaitable[T]) -> T:
    """What `reading` gives: of a room one has left, or of one open to the world, the homeserver
    tells it too."""
    intent, known = caller.intent, caller.house.known
    if known.was_in(intent, room_id):
        return await reading
    inside, read = await asyncio.gather(
        known.is_in(intent, room_id), reading, return_exceptions=True
    )
    if inside is False:
        raise not_in(caller, ref)
    for outcome in (inside, read):
        if isinstance(outcome, BaseException):
            raise outcome
    return read  # pyright: ignore[reportReturnType] - no exception, as was looked


def _told(
    caller: Caller, room_id: str, events: Sequence[Json], *, before: str = "", after: str = ""
) -> dict[str, object]:
    rest = {"room_id": room_id, **UNTRUSTED, **filled(before=before, after=after)}
    return fit_texts(lambda length: {**rest, "messages": entries(caller, events, length)}, NOTE)


def _unknown(room_id: str, event_id: str) -> ToolError:
    text = f"There is no message {event_id} in {room_id} that you may see."
    return ToolError(text, Fault.NOT_FOUND)


async def _page(intent: Intent, room_id: str, way: str, token: str, limit: int) -> Page:
    before, after = ("", token) if way == "f" else (token, "")
    return await intent.messages(room_id, limit=limit, before=before, after=after, filters=FILTER)


async def _more(
    intent: Intent, room_id: str, way: str, page: Page, limit: int
) -> tuple[list[Json], str]:
    """The first `limit` messages beginning with a page that is there already, and the place to
    go on from."""
    found = [event for event in page.events if is_message(event)]
    if len(found) >= limit or not page.end:
        return found, page.end
    fetch = partial(_page, intent, room_id, way)
    read = await collect(fetch, page.end, limit - len(found), way=way)
    return found + read.found, read.end if way == "b" else read.reached
