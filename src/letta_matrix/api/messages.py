"""Messages of rooms: send, list, search, change, and what is done beside them."""

from typing import Annotated

from fastapi import Query
from pydantic import Field

from letta_matrix.api.calling import IdempotencyKey, Json, call, given_once
from letta_matrix.api.passing import passing
from letta_matrix.api.paths import EventOfPath, RoomOfPath
from letta_matrix.api.problems import FROM_TOOLS
from letta_matrix.api.routing import WriteBody, router_for
from letta_matrix.api.security import Api, Holder
from letta_matrix.toolbox.editing import Edited, Redacted
from letta_matrix.toolbox.history import Context, History, Thread
from letta_matrix.toolbox.markers import MarkedRead, Typing
from letta_matrix.toolbox.searching import Hits
from letta_matrix.toolbox.tool import EventId, Markdown
from letta_matrix.toolbox.writing import Reacted, Sent

router = router_for("messages")

_EVENT = "$KfSWbdoLZpBf9lhXd6Uv0pzR0KzLGtYtNtTQpx8l2wE"
Few = Annotated[int, Query(ge=1, le=50, description="how many messages")]
Before = Annotated[
    str, Query(max_length=1_000, description="`before` of an earlier answer, for older messages")
]


class NewMessage(WriteBody):
    message: Markdown = Field(description="what to say, as Markdown")
    reply_to: EventId | None = Field(None, description="the message it replies to")
    thread: EventId | None = Field(
        None, description="a message whose thread it belongs to, which begins there if it has none"
    )


class ChangedMessage(WriteBody):
    message: Markdown = Field(description="what it shall say now, as Markdown")


class NewReaction(WriteBody):
    key: str = Field(min_length=1, max_length=64, description="an emoji")


class ReadUpTo(WriteBody):
    event_id: EventId | None = Field(None, description="last message read; default: the newest")
    private: bool = Field(False, description="show others no read receipt")


class ShownTyping(WriteBody):
    typing: bool = Field(True, description="false: stop")
    seconds: int = Field(30, ge=1, le=120, description="how long, unless stopped")


@router.post("/rooms/{room}/messages", status_code=201, response_model=Sent, responses=FROM_TOOLS)
async def send_message(
    holder: Holder, api: Api, room: RoomOfPath, body: NewMessage, key: IdempotencyKey = ""
) -> Json:
    """Send a message, also as a reply or in a thread."""
    tool, wanted = "matrix_send_message", {"room_id": room, "message": body.message}
    if body.thread is not None:
        tool = "matrix_reply_in_thread"
        wanted["event_id"] = body.reply_to or body.thread
    elif body.reply_to is not None:
        tool, wanted["event_id"] = "matrix_reply", body.reply_to
    once = given_once(body.transaction_id, key)
    return Json(await call(api, holder, tool, wanted, once), 201)


@passing(router, "GET", "/rooms/{room}/messages", "matrix_read_room", History)
def list_messages(
    room: RoomOfPath,
    limit: Few = 10,
    before: Before = "",
    after: Annotated[
        str, Query(max_length=1_000, description="`after` of an earlier answer, for newer ones")
    ] = "",
) -> None:
    """List the newest messages of a room, oldest first."""


@passing(router, "GET", "/rooms/{room}/messages/{event_id}/context", "matrix_get_context", Context)
def get_context(
    room: RoomOfPath,
    event_id: EventOfPath,
    around: Annotated[int, Query(ge=0, le=25, description="how many before, and after it")] = 5,
) -> None:
    """Show a message with what was said before and after it."""


@passing(router, "GET", "/rooms/{room}/messages/{event_id}/thread", "matrix_read_thread", Thread)
def list_thread(
    room: RoomOfPath, event_id: EventOfPath, limit: Few = 20, before: Before = ""
) -> None:
    """List the newest messages of a message's thread, oldest first."""


@passing(router, "PUT", "/rooms/{room}/messages/{event_id}", "matrix_edit_message", Edited)
def edit_message(room: RoomOfPath, event_id: EventOfPath, body: ChangedMessage) -> None:
    """Replace the text of a message that you sent."""


@passing(router, "DELETE", "/rooms/{room}/messages/{event_id}", "matrix_redact", Redacted)
def redact_message(
    room: RoomOfPath, event_id: EventOfPath, reason: Annotated[str, Query(max_length=500)] = ""
) -> None:
    """Remove a message for good: your own, or another's if you have the power to."""


@passing(
    router,
    "POST",
    "/rooms/{room}/messages/{event_id}/reactions",
    "matrix_react",
    Reacted,
    status=201,
)
def react_to_message(room: RoomOfPath, event_id: EventOfPath, body: NewReaction) -> None:
    """React to a message with an emoji."""


@passing(router, "POST", "/rooms/{room}/read", "matrix_mark_read", MarkedRead)
def mark_read(room: RoomOfPath, body: ReadUpTo) -> None:
    """Mark a room as read, up to a message or wholly."""


@passing(router, "POST", "/rooms/{room}/typing", "matrix_set_typing", Typing)
def show_typing(room: RoomOfPath, body: ShownTyping) -> None:
    """Show in a room that you are typing, or stop showing it."""


@passing(router, "GET", "/search", "matrix_search", Hits)
def search_messages(
    query: Annotated[str, Query(min_length=1, max_length=200, description="words, in any order")],
    room_id: Annotated[
        str, Query(max_length=255, description="only there; default: all your rooms")
    ] = "",
    sender: Annotated[str, Query(max_length=255, description="only of this user (@...)")] = "",
    limit: Few = 10,
    before: Before = "",
) -> None:
    """Search the messages of your rooms for words, newest first."""
