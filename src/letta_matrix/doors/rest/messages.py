"""Messages of rooms: send, list, search, change, and what is done beside them."""

from pydantic import Field

from letta_matrix.access.principal import Scope
from letta_matrix.doors.rest.calling import IdempotencyKey, Json, call, given_once
from letta_matrix.doors.rest.passing import passing
from letta_matrix.doors.rest.paths import RoomOfPath
from letta_matrix.doors.rest.problems import FROM_TOOLS
from letta_matrix.doors.rest.routing import WriteBody, router_for
from letta_matrix.doors.rest.security import Api, Holder, needs
from letta_matrix.operations.toolbox import editing, history, read_state, searching, writing
from letta_matrix.operations.toolbox.tool import EventId, Markdown
from letta_matrix.operations.toolbox.writing import Sent

router = router_for("messages")


class NewMessage(WriteBody):
    message: Markdown = Field(description="what to say, as Markdown")
    reply_to: EventId | None = Field(None, description="the message it replies to")
    thread: EventId | None = Field(
        None, description="a message whose thread it belongs to, which begins there if it has none"
    )


@router.post(
    "/rooms/{room}/messages",
    status_code=201,
    response_model=Sent,
    responses=FROM_TOOLS,
    openapi_extra=needs(Scope.WRITE),
)
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


@passing(router, "GET", "/rooms/{room}/messages", history.read_room)
def list_messages() -> None:
    """List the newest messages of a room, oldest first."""


@passing(router, "GET", "/rooms/{room}/messages/{event_id}/context", history.get_context)
def get_context() -> None:
    """Show a message with what was said before and after it."""


@passing(router, "GET", "/rooms/{room}/messages/{event_id}/thread", history.read_thread)
def list_thread() -> None:
    """List the newest messages of a message's thread, oldest first."""


@passing(router, "PUT", "/rooms/{room}/messages/{event_id}", editing.edit_message)
def edit_message() -> None:
    """Replace the text of a message that you sent."""


@passing(router, "DELETE", "/rooms/{room}/messages/{event_id}", editing.redact)
def redact_message() -> None:
    """Remove a message for good: your own, or another's if you have the power to."""


@passing(router, "POST", "/rooms/{room}/messages/{event_id}/reactions", writing.react, status=201)
def react_to_message() -> None:
    """React to a message with an emoji."""


@passing(router, "POST", "/rooms/{room}/read", read_state.mark_read)
def mark_read() -> None:
    """Mark a room as read, up to a message or wholly."""


@passing(router, "POST", "/rooms/{room}/typing", read_state.set_typing)
def show_typing() -> None:
    """Show in a room that you are typing, or stop showing it."""


@passing(router, "GET", "/search", searching.search)
def search_messages() -> None:
    """Search the messages of your rooms for words, newest first."""
