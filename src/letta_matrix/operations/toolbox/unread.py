"""The tool that tells what the caller has not read yet."""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple, NotRequired

from mautrix.errors import MForbidden

from letta_matrix.access.principal import Scope
from letta_matrix.common.json_fields import items, mapping
from letta_matrix.common.side_by_side import side_by_side
from letta_matrix.matrix.events import Event, RawEvent
from letta_matrix.matrix.room_reading import Snapshot
from letta_matrix.operations.toolbox.arguments import After
from letta_matrix.operations.toolbox.results import UNTRUSTED, OfRoom, Page, cut, filled, fit_texts
from letta_matrix.operations.toolbox.timeline import Message, entry, is_message
from letta_matrix.operations.toolbox.tool import Caller, Params, Result, tool

_ROOMS = 15
_EVENTS = 30
"""Rooms of a page, and events that are looked at in each: what bounds the homeserver's work."""

_TEXT = 300
_NAME = 60
_READ = ("m.read", "m.read.private")


class ListUnread(Params):
    after: After = 0


class UnreadRoom(OfRoom):
    """A room with `unread` messages of others, or more than that with `or_more`; of those
    `mentions` mention the caller. `last` is the newest."""

    name: str
    unread: int
    or_more: NotRequired[bool]
    mentions: int
    last: Message


class UnreadRooms(Page):
    """The rooms with something unread among those that this page looked at; `next` tells that
    there are more rooms to look at."""

    rooms: list[UnreadRoom]


class Unread(NamedTuple):
    """Unread messages, oldest first; `whole` says that there are no older ones."""

    messages: Sequence[RawEvent]
    whole: bool


@tool("matrix_list_unread", "List unread rooms", Scope.READ, UnreadRooms, read_only=True)
async def list_unread(caller: Caller, params: ListUnread) -> Result:
    """List which of your Matrix rooms have messages you have not read."""
    everywhere = sorted(await caller.rooms())
    end = params.after + _ROOMS
    room_ids = everywhere[params.after : end]
    shots = await snapshots(caller, room_ids)
    looked = {one: unread(shots[one], caller.user_id) for one in room_ids if one in shots}
    found = {room_id: news for room_id, news in looked.items() if news.messages}
    cards = await caller.house.known.cards(caller.intent, found)
    rest = {**UNTRUSTED, **filled(next=end < len(everywhere) and end)}
    names = caller.house.agent_names()

    def make(length: int) -> dict[str, object]:
        rooms = [
            {
                "room_id": room_id,
                "name": cut(cards[room_id].title(caller.user_id), _NAME),
                **_counts(news, caller.user_id),
                "last": entry(news.messages[-1], names, min(length, _TEXT)),
            }
            for room_id, news in found.items()
        ]
        return {**rest, "rooms": rooms}

    return fit_texts(make, "Texts are cut; read the room for more.")


async def snapshots(caller: Caller, room_ids: Sequence[str]) -> Mapping[str, Snapshot]:
    """The newest of rooms that the caller is in, with what tells how far it has read."""
    intent = caller.intent
    if not room_ids:
        return {}
    if caller.agent_id:
        # Those of the Conduit family give no sync to application services.
        with contextlib.suppress(MForbidden):
            return await intent.snapshots(room_ids, limit=_EVENTS)

    # The bot, whom Synapse gives no sync: of its receipts nothing is to be learnt.
    async def one(room_id: str) -> tuple[str, Snapshot]:
        marker, page = await asyncio.gather(
            intent.fully_read(room_id), intent.messages(room_id, limit=_EVENTS)
        )
        return room_id, Snapshot(page.events[::-1], {}, marker)

    return dict(await side_by_side(one, room_ids))


def unread(shot: Snapshot, own_id: str) -> Unread:
    """Which messages of others came after what `own_id` has read. What it said itself, or its
    coming, tells as much as a receipt; a receipt of a thread is for that thread alone (spec:
    Threaded read receipts)."""
    events = shot.events
    places = {str(event.get("event_id")): index for index, event in enumerate(events)}
    read: dict[str, int] = {}
    for event_id, thread in _marks(shot, own_id):
        if event_id in places:
            read[thread] = max(read.get(thread, -1), places[event_id])
    found = [
        event
        for index, event in enumerate(events)
        if is_message(event)
        and event.get("sender") != own_id
        and index > max(read.get("", -1), read.get(Event(event).thread or "main", -1))
    ]
    whole = "" in read or any(event.get("type") == "m.room.create" for event in events)
    return Unread(found, whole or len(events) < _EVENTS)


def _marks(shot: Snapshot, own_id: str) -> list[tuple[str, str]]:
    """Events up to which somebody has read, each with its thread: "main", or "" for all."""
    marks = [(shot.marker, "")]
    for event_id, kinds in shot.receipts.items():
        for kind in _READ:
            receipt = mapping(mapping(mapping(kinds).get(kind)).get(own_id))
            marks += [(event_id, str(receipt.get("thread_id") or ""))] if receipt else []
    acts = (event for event in shot.events if _acts(event, own_id))
    return marks + [(str(event.get("event_id")), "") for event in acts]


def _acts(event: RawEvent, own_id: str) -> bool:
    """Whether somebody said or did something in a room, or came; a new name is neither."""
    if event.get("type") != "m.room.member":
        return event.get("sender") == own_id
    previous = mapping(mapping(event.get("unsigned")).get("prev_content"))
    return event.get("state_key") == own_id and previous.get("membership") != "join"


def _counts(news: Unread, own_id: str) -> dict[str, object]:
    mentions = sum(_mentions(event, own_id) for event in news.messages)
    return filled(unread=len(news.messages), or_more=not news.whole, mentions=mentions)


def _mentions(event: RawEvent, own_id: str) -> bool:
    mentions = mapping(Event(event).content.get("m.mentions"))
    return mentions.get("room") is True or own_id in (items(mentions.get("user_ids")) or [])
