"""The tool that searches what was said."""

from typing import Annotated, NotRequired

from pydantic import Field, StringConstraints

from letta_matrix.access.principal import Scope
from letta_matrix.common.json_fields import Json
from letta_matrix.matrix.room_reading import Page
from letta_matrix.operations.toolbox.arguments import OptionalRoom, OptionalUser
from letta_matrix.operations.toolbox.history import NOTE, Before, entries
from letta_matrix.operations.toolbox.naming import joined_room
from letta_matrix.operations.toolbox.paging import collect
from letta_matrix.operations.toolbox.results import UNTRUSTED, Untrusted, cut, filled, fit_texts
from letta_matrix.operations.toolbox.timeline import Message, as_edited, is_message
from letta_matrix.operations.toolbox.tool import Caller, Line, Params, Result, tool

_NAME = 60


class Search(Params):
    query: Annotated[Line, StringConstraints(max_length=200)] = Field(
        description="words that the messages have, in any order"
    )
    room_id: OptionalRoom = Field("", description="only there; default: all your rooms")
    sender: OptionalUser = Field("", description="only messages of this user (@...)")
    limit: int = Field(10, ge=1, le=25, description="how many messages")
    before: Before = ""


class Hit(Message):
    """A message that was found; `room` is what its room is called."""

    room_id: str
    room: str


class Hits(Untrusted):
    """What was found, newest first."""

    messages: list[Hit]
    before: NotRequired[str]
    note: NotRequired[str]


@tool("matrix_search", "Search messages", Scope.READ, Hits, read_only=True)
async def search(caller: Caller, params: Search) -> Result:
    """Search the messages of your Matrix rooms for words, newest first."""
    room_ids = await _rooms(caller, params)
    if not room_ids:
        return {**UNTRUSTED, "messages": []}
    allowed, seen = set(room_ids), set[str]()

    async def fetch(token: str, limit: int) -> Page:
        return await caller.intent.search(params.query, room_ids, limit=limit, at=token)

    def wanted(event: Json) -> bool:
        # Each version of a message that has the words is a hit of its own.
        message = as_edited(event)
        event_id = str(message.get("event_id"))
        # Homeservers search rooms' predecessors too, whichever rooms name as theirs.
        fits = event.get("room_id") in allowed and is_message(message)
        fits = fits and params.sender in ("", event.get("sender"))
        is_new = fits and event_id not in seen
        seen.update([event_id] if fits else [])
        return is_new

    read = await collect(fetch, params.before, params.limit, wanted=wanted)
    return await _told(caller, [as_edited(event) for event in read.found], read.end)


async def _rooms(caller: Caller, params: Search) -> list[str]:
    if not params.room_id:
        return await caller.rooms()
    async with joined_room(caller, params.room_id) as room_id:
        return [room_id]


async def _told(caller: Caller, events: list[Json], before: str) -> Result:
    room_ids = [str(event.get("room_id")) for event in events]
    cards = await caller.house.known.cards(caller.intent, set(room_ids))
    titles = {one: cut(card.title(caller.user_id), _NAME) for one, card in cards.items()}
    rooms = [{"room_id": one, "room": titles[one]} for one in room_ids]
    rest = {**UNTRUSTED, **filled(before=before)}

    def make(length: int) -> dict[str, object]:
        hits = zip(rooms, entries(caller, events, length), strict=True)
        return {**rest, "messages": [room | hit for room, hit in hits]}

    return fit_texts(make, NOTE)
