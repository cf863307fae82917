"""Tools that put a question to a vote (MSC3381, in the unstable form that clients send)."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from letta_matrix.access.faults import Fault, ToolError
from letta_matrix.access.principal import Scope
from letta_matrix.common.json_fields import items, mapping
from letta_matrix.matrix.content import MARKER
from letta_matrix.matrix.events import Event, RawEvent
from letta_matrix.matrix.polls import KEYS, MOST_OPTIONS, POLL, STARTS, TEXT, first_of, text_of
from letta_matrix.matrix.power_levels import creators, level_of, needed_for
from letta_matrix.operations.toolbox.arguments import RoomParams, RoomWriteParams
from letta_matrix.operations.toolbox.naming import room_of, writable_room
from letta_matrix.operations.toolbox.results import UNTRUSTED, OfEvent, Untrusted, cut
from letta_matrix.operations.toolbox.tool import Caller, EventId, Line, Result, tool
from letta_matrix.operations.toolbox.writing import existing, marker_of, send_once

_START, _RESPONSE, _END = f"{POLL}.start", f"{POLL}.response", f"{POLL}.end"
_RESPONSES = (_RESPONSE, "m.poll.response")
_ENDS = (_END, "m.poll.end")

_CLOSED = "The poll has ended."
_MOST_VOTES = 1_000
"""What a homeserver tells of an event's relations at once."""

_SHOWN = 400


class CreatePoll(RoomWriteParams):
    question: Line = Field(max_length=1_000)
    options: list[Annotated[Line, Field(max_length=300)]] = Field(
        min_length=2, max_length=MOST_OPTIONS
    )
    max_selections: int = Field(1, ge=1, le=MOST_OPTIONS, description="options each may choose")
    hidden: bool = Field(False, description="show results only once it is closed")


class ClosePoll(RoomWriteParams):
    event_id: EventId = Field(description="your poll ($...)")


class ReadPoll(RoomParams):
    event_id: EventId = Field(description="the poll ($...)")


class Option(TypedDict):
    text: str
    votes: int


class Poll(OfEvent, Untrusted):
    """How a poll stands; `note` is there if not all votes could be counted."""

    question: str
    options: list[Option]
    voters: int
    closed: bool
    note: NotRequired[str]


class Closed(Poll):
    end_event_id: str


@tool("matrix_create_poll", "Create a poll", Scope.WRITE, OfEvent)
async def create_poll(caller: Caller, params: CreatePoll) -> Result:
    """Put a question with options to the vote in a room."""
    if len(set(params.options)) < len(params.options):
        raise ToolError("`options` has one twice.")
    txn = caller.txn("matrix_create_poll")
    content = _start(params) | {MARKER: marker_of(caller, "matrix_create_poll", txn)}
    async with writable_room(caller, params.room_id) as room_id:
        event_id = await send_once(caller, room_id, content, txn, _START)
    return {"room_id": room_id, "event_id": event_id}


@tool("matrix_close_poll", "Close a poll", Scope.WRITE, Closed)
async def close_poll(caller: Caller, params: ClosePoll) -> Result:
    """Close a poll of yours and tell its result."""
    async with writable_room(caller, params.room_id) as room_id:
        poll = await _poll(caller, room_id, params.event_id)
        if poll.event.get("sender") != caller.user_id:
            raise ToolError(
                f"{params.event_id} is not yours: only who made a poll can close it.",
                Fault.FORBIDDEN,
            )
        ended = poll.end and poll.end["event_id"]
        ended = ended or await _close(caller, room_id, params.event_id)
    return {**_standing(room_id, params.event_id, poll), "closed": True, "end_event_id": str(ended)}


@tool("matrix_read_poll", "Read a poll", Scope.READ, Poll, read_only=True)
async def read_poll(caller: Caller, params: ReadPoll) -> Result:
    """Tell how many have voted for what in a poll."""
    async with room_of(caller, params.room_id) as room_id:
        poll = await _poll(caller, room_id, params.event_id)
    return _standing(room_id, params.event_id, poll)


class _Poll(NamedTuple):
    """A poll, what refers to it (votes), and the event that closed it."""

    event: RawEvent
    related: Sequence[RawEvent]
    end: RawEvent | None


def _start(params: CreatePoll) -> dict[str, object]:
    answers = [{"id": str(number), TEXT: option} for number, option in enumerate(params.options, 1)]
    question = {TEXT: params.question, "body": params.question, "msgtype": "m.text"}
    lines = [f"{number}. {option}" for number, option in enumerate(params.options, 1)]
    return {
        _START: {
            "question": question,
            "kind": f"{POLL}.{'undisclosed' if params.hidden else 'disclosed'}",
            "max_selections": min(params.max_selections, len(answers)),
            "answers": answers,
        },
        # What clients without polls show.
        TEXT: "\n".join([params.question, *lines]),
        "m.mentions": {},
    }


async def _poll(caller: Caller, room_id: str, event_id: str) -> _Poll:
    event = await existing(caller, room_id, event_id)
    if event.get("type") not in STARTS or not first_of(event.get("content"), *KEYS):
        raise ToolError(f"{event_id} is no poll, or was removed.", Fault.NOT_FOUND)
    related = await caller.intent.relations(room_id, event_id, "m.reference", limit=_MOST_VOTES)
    return _Poll(event, related, await _end(caller, room_id, event, related))


async def _close(caller: Caller, room_id: str, event_id: str) -> str:
    txn = caller.txn("matrix_close_poll")
    content = {
        "m.relates_to": {"rel_type": "m.reference", "event_id": event_id},
        _END: {},
        TEXT: _CLOSED,
        MARKER: marker_of(caller, "matrix_close_poll", txn),
    }
    return await send_once(caller, room_id, content, txn, _END)


def _standing(room_id: str, event_id: str, poll: _Poll) -> dict[str, object]:
    start = mapping(first_of(poll.event.get("content"), *KEYS))
    options = {
        str(first_of(answer, "id", "m.id")): _text(answer)
        for answer in (items(start.get("answers")) or [])[:MOST_OPTIONS]
    }
    votes = _votes(poll, start, options)
    counted = Counter(option for chosen in votes for option in chosen)
    told: dict[str, object] = {
        "room_id": room_id,
        "event_id": event_id,
        **UNTRUSTED,
        "question": _text(start.get("question")),
        "options": [{"text": text, "votes": counted[key]} for key, text in options.items()],
        "voters": len(votes),
        "closed": poll.end is not None,
    }
    is_cut = len(poll.related) >= _MOST_VOTES
    return told | ({"note": "Older votes are not counted."} if is_cut else {})


async def _end(
    caller: Caller, room_id: str, event: RawEvent, related: Sequence[RawEvent]
) -> RawEvent | None:
    """The event by which its owner, or one who may remove others' messages, closed a poll."""
    ends = [one for one in related if one.get("type") in _ENDS]
    may = {event.get("sender")}
    if {one.get("sender") for one in ends} - may:
        create = await caller.intent.creation(room_id)
        levels = await caller.intent.state(room_id, "m.room.power_levels")
        least, above = needed_for(levels)["redact"], creators(create)
        senders = {str(one.get("sender")) for one in ends}
        may |= {who for who in senders if who in above or level_of(levels, who) >= least}
    return min((one for one in ends if one.get("sender") in may), key=_sent_ms, default=None)


def _votes(poll: _Poll, start: Mapping[str, Any], options: Mapping[str, str]) -> list[list[str]]:
    """What each voter chose: their latest vote before the end counts. One for what is no option
    is for nothing."""
    given, end = start.get("max_selections"), poll.end
    most = given if isinstance(given, int) and given > 0 else 1
    latest: dict[str, list[str]] = {}
    for event in sorted(poll.related, key=_sent_ms):
        is_late = end is not None and _sent_ms(event) > _sent_ms(end)
        if event.get("type") not in _RESPONSES or is_late:
            continue
        chosen = _chosen(mapping(event.get("content")))
        is_spoilt = any(one not in options for one in chosen)
        latest[str(event.get("sender"))] = [] if is_spoilt else list(dict.fromkeys(chosen))[:most]
    return [chosen for chosen in latest.values() if chosen]


def _chosen(content: Mapping[str, Any]) -> list[str]:
    answers = items(mapping(content.get(_RESPONSE)).get("answers"))
    return [str(one) for one in answers or items(content.get("m.selections")) or []]


def _text(block: object) -> str:
    return cut(text_of(block), _SHOWN)


def _sent_ms(event: RawEvent) -> int:
    return Event(event).sent_ms
