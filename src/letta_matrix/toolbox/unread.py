"""The tool that tells what the caller has not read yet."""

import asyncio
from collections.abc import Sequence
from typing import NamedTuple, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from letta_matrix.access.principal import Scope
from letta_matrix.common.json_fields import items, mapping
from letta_matrix.matrix.events import Event, RawEvent
from letta_matrix.matrix.intent import Intent
from letta_matrix.matrix.room_reading import Snapshot
from letta_matrix.store.agents import AgentDirectory
from letta_matrix.toolbox.history import agent_names
from letta_matrix.toolbox.known_rooms import KnownRooms
from letta_matrix.toolbox.results import UNTRUSTED, cut, fit_texts
from letta_matrix.toolbox.timeline import Message, entry, is_message
from letta_matrix.toolbox.tool import Caller, Params, Result, tool

_ROOMS = 15
_EVENTS = 30
"""Rooms of a page, and events that are looked at in each: what bounds the homeserver's work."""

_AT_ONCE = 8
_TEXT = 300
_NAME = 60
_READ = ("m.read", "m.read.private")


class ListUnread(Params):
    after: int = Field(0, ge=0, description="`next` of an earlier answer")


class UnreadRoom(TypedDict):
    """A room with `unread` messages of others, or more than that with `or_more`; of those
    `mentions` mention the caller. `last` is the newest."""

    room_id: str
    name: str
    unread: int
    or_more: NotRequired[bool]
    mentions: int
    last: Message


class UnreadRooms(TypedDict):
    """The rooms with something unread among those that this page looked at; `next` tells that
    there are more rooms to look at."""

    untrusted: str
    rooms: list[UnreadRoom]
    next: NotRequired[int]
    note: NotRequired[str]


class Unread(NamedTuple):
    """Unread messages, oldest first; `whole` says that there are no older ones."""

    messages: Sequence[RawEvent]
    whole: bool


class Unreads:
    """The tool; `directory` tells agents by their names."""

    def __init__(self, directory: AgentDirectory, known: KnownRooms) -> None:
        self._directory = directory
        self._known = known

    @tool("matrix_list_unread", "List unread rooms", Scope.READ, UnreadRooms, read_only=True)
    async def list_unread(self, caller: Caller, params: ListUnread) -> Result:
        """List which of your Matrix rooms have messages you have not read."""
        everywhere = sorted(await caller.rooms())
        room_ids = everywhere[params.after : params.after + _ROOMS]
        shots = await snapshots(caller, room_ids) if room_ids else {}
        found = {
            room_id: unread(shots[room_id], caller.user_id)
            for room_id in room_ids
            if room_id in shots
        }
        found = {room_id: news for room_id, news in found.items() if news.messages}
        titles = await self._known.titles(caller.intent, found)
        rest: dict[str, object] = {**UNTRUSTED}
        if params.after + _ROOMS < len(everywhere):
            rest["next"] = params.after + _ROOMS
        names = agent_names(self._directory)

        def make(length: int) -> dict[str, object]:
            rooms = [
                {
                    "room_id": room_id,
                    "name": cut(titles[room_id], _NAME),
                    **_counts(news, caller.user_id),
                    "last": entry(news.messages[-1], names, min(length, _TEXT)),
                }
                for room_id, news in found.items()
            ]
            return {**rest, "rooms": rooms}

        return fit_texts(make, "Texts are cut; read the room for more.")


async def snapshots(caller: Caller, room_ids: Sequence[str]) -> dict[str, Snapshot]:
    """The newest of rooms that the caller is in, with what tells how far it has read."""
    if caller.agent_id:
        return await caller.intent.snapshots(room_ids, limit=_EVENTS)
    # The bot, whom Synapse gives no sync: of its receipts nothing is to be learnt.
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one(room_id: str) -> Snapshot:
        async with gate:
            return await _snapshot(caller.intent, room_id)

    shots = await asyncio.gather(*map(one, room_ids))
    return dict(zip(room_ids, shots, strict=True))


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
    counts: dict[str, object] = {"unread": len(news.messages)}
    counts |= {} if news.whole else {"or_more": True}
    return counts | {"mentions": sum(_mentions(event, own_id) for event in news.messages)}


def _mentions(event: RawEvent, own_id: str) -> bool:
    mentions = mapping(Event(event).content.get("m.mentions"))
    return mentions.get("room") is True or own_id in (items(mentions.get("user_ids")) or [])


async def _snapshot(intent: Intent, room_id: str) -> Snapshot:
    marker, page = await asyncio.gather(
        intent.fully_read(room_id), intent.messages(room_id, limit=_EVENTS)
    )
    return Snapshot(page.events[::-1], {}, marker)
