"""Messages of rooms: send, list, search, change, and what is done beside them."""

from typing import Annotated, Any

from fastapi import Query
from pydantic import ConfigDict, Field

from letta_matrix.api.calling import IdempotencyKey, Json, call, given_once
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
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                dict[str, Any](message="Good **morning**."),
                dict[str, Any](message="Agreed.", reply_to=_EVENT),
            ]
        },
    )

    message: Markdown = Field(description="what to say, as Markdown")
    reply_to: EventId | None = Field(None, description="the message it replies to")
    thread: EventId | None = Field(
        None, description="a message whose thread it belongs to, which begins there if it has none"
    )


class ChangedMessage(WriteBody):
    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"message": "Good *evening*."}]}
    )

    message: Markdown = Field(description="what it shall say now, as Markdown")


class NewReaction(WriteBody):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"key": "👍"}]})

    key: str = Field(min_length=1, max_length=64, description="an emoji")


class ReadUpTo(WriteBody):
    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"event_id": _EVENT}]}
    )

    event_id: EventId | None = Field(None, description="last message read; default: the newest")
    private: bool = Field(False, description="show others no read receipt")


class ShownTyping(WriteBody):
    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [dict[str, Any](typing=True, seconds=10)]}
    )

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


@router.get("/rooms/{room}/messages", response_model=History, responses=FROM_TOOLS)
async def list_messages(
    holder: Holder,
    api: Api,
    room: RoomOfPath,
    limit: Few = 10,
    before: Before = "",
    after: Annotated[
        str, Query(max_length=1_000, description="`after` of an earlier answer, for newer ones")
    ] = "",
) -> Json:
    """List the newest messages of a room, oldest first."""
    wanted = {"room_id": room, "limit": limit, "before": before, "after": after}
    return Json(await call(api, holder, "matrix_read_room", wanted))


@router.get(
    "/rooms/{room}/messages/{event_id}/context", response_model=Context, responses=FROM_TOOLS
)
async def get_context(
    holder: Holder,
    api: Api,
    room: RoomOfPath,
    event_id: EventOfPath,
    around: Annotated[int, Query(ge=0, le=25, description="how many before, and after it")] = 5,
) -> Json:
    """Show a message with what was said before and after it."""
    wanted = {"room_id": room, "event_id": event_id, "around": around}
    return Json(await call(api, holder, "matrix_get_context", wanted))


@router.get("/rooms/{room}/messages/{event_id}/thread", response_model=Thread, responses=FROM_TOOLS)
async def list_thread(
    holder: Holder,
    api: Api,
    room: RoomOfPath,
    event_id: EventOfPath,
    limit: Few = 20,
    before: Before = "",
) -> Json:
    """List the newest messages of a message's thread, oldest first."""
    wanted = {"room_id": room, "event_id": event_id, "limit": limit, "before": before}
    return Json(await call(api, holder, "matrix_read_thread", wanted))


@router.put("/rooms/{room}/messages/{event_id}", response_model=Edited, responses=FROM_TOOLS)
async def edit_message(
    holder: Holder,
    api: Api,
    room: RoomOfPath,
    event_id: EventOfPath,
    body: ChangedMessage,
    key: IdempotencyKey = "",
) -> Json:
    """Replace the text of a message that you sent."""
    wanted = {"room_id": room, "event_id": event_id, "message": body.message}
    once = given_once(body.transaction_id, key)
    return Json(await call(api, holder, "matrix_edit_message", wanted, once))


@router.delete("/rooms/{room}/messages/{event_id}", response_model=Redacted, responses=FROM_TOOLS)
async def redact_message(
    holder: Holder,
    api: Api,
    room: RoomOfPath,
    event_id: EventOfPath,
    reason: Annotated[str, Query(max_length=500)] = "",
    key: IdempotencyKey = "",
) -> Json:
    """Remove a message for good: your own, or another's if you have the power to."""
    wanted = {"room_id": room, "event_id": event_id, "reason": reason}
    return Json(await call(api, holder, "matrix_redact", wanted, key))


@router.post(
    "/rooms/{room}/messages/{event_id}/reactions",
    status_code=201,
    response_model=Reacted,
    responses=FROM_TOOLS,
)
async def react_to_message(
    holder: Holder,
    api: Api,
    room: RoomOfPath,
    event_id: EventOfPath,
    body: NewReaction,
    key: IdempotencyKey = "",
) -> Json:
    """React to a message with an emoji."""
    wanted = {"room_id": room, "event_id": event_id, "key": body.key}
    once = given_once(body.transaction_id, key)
    return Json(await call(api, holder, "matrix_react", wanted, once), 201)


@router.post("/rooms/{room}/read", response_model=MarkedRead, responses=FROM_TOOLS)
async def mark_read(
    holder: Holder, api: Api, room: RoomOfPath, body: ReadUpTo, key: IdempotencyKey = ""
) -> Json:
    """Mark a room as read, up to a message or wholly."""
    wanted = {"room_id": room, "event_id": body.event_id or "", "private": body.private}
    once = given_once(body.transaction_id, key)
    return Json(await call(api, holder, "matrix_mark_read", wanted, once))


@router.post("/rooms/{room}/typing", response_model=Typing, responses=FROM_TOOLS)
async def show_typing(
    holder: Holder, api: Api, room: RoomOfPath, body: ShownTyping, key: IdempotencyKey = ""
) -> Json:
    """Show in a room that you are typing, or stop showing it."""
    wanted = {"room_id": room, "typing": body.typing, "seconds": body.seconds}
    once = given_once(body.transaction_id, key)
    return Json(await call(api, holder, "matrix_set_typing", wanted, once))


@router.get("/search", response_model=Hits, responses=FROM_TOOLS)
async def search_messages(
    holder: Holder,
    api: Api,
    query: Annotated[str, Query(min_length=1, max_length=200, description="words, in any order")],
    room_id: Annotated[
        str, Query(max_length=255, description="only there; default: all your rooms")
    ] = "",
    sender: Annotated[str, Query(max_length=255, description="only of this user (@...)")] = "",
    limit: Few = 10,
    before: Before = "",
) -> Json:
    """Search the messages of your rooms for words, newest first."""
    wanted = {
        "query": query,
        "room_id": room_id,
        "sender": sender,
        "limit": limit,
        "before": before,
    }
    return Json(await call(api, holder, "matrix_search", wanted))
