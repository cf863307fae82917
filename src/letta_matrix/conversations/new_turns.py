"""Turns as events start them, and what is read of an event for that. Pure functions."""

import re
import time
from functools import lru_cache

from letta_matrix.conversations.readable import attachment_of, read_prompt
from letta_matrix.matrix.events import Event, RawEvent
from letta_matrix.matrix.formatting import clean_text
from letta_matrix.store.amendments import Amendment
from letta_matrix.store.inbox import InboxEntry, InboxState
from letta_matrix.store.turn_ids import turn_id_of
from letta_matrix.store.turns import Turn, TurnKind

_COMMAND = re.compile(r"!(?:letta(?:\s+|\Z))?([a-z][a-z-]*(?:\s.*)?)?\Z", re.DOTALL | re.IGNORECASE)


def new_turn(
    event: RawEvent,
    agent_id: str,
    prompt: str | None,
    *,
    thread_id: str | None = None,
) -> Turn:
    """The turn that an event starts with an agent, in the event's thread unless another is
    given; its id derives from event and agent."""
    event_id = str(event["event_id"])
    return Turn(
        turn_id=turn_id_of(event_id, agent_id),
        agent_id=agent_id,
        room_id=str(event["room_id"]),
        event_id=event_id,
        sender=str(event["sender"]),
        sent_at=sent_at(event),
        prompt=prompt,
        thread_id=thread_of(event) if thread_id is None else thread_id,
        reply_to=reply_of(event),
        attachment=attachment_of(event),
    )


def entry_for(event: RawEvent, state: InboxState, *turns: Turn) -> InboxEntry:
    """An event as it is kept, with the turns it starts."""
    return InboxEntry(str(event["event_id"]), str(event["room_id"]), event, state, list(turns))


def command_turn(event: RawEvent, agent_id: str, line: str) -> Turn:
    """The turn of a command for the bridge, in an agent's name or (with "") the bot's."""
    turn = new_turn(event, agent_id, line)
    turn.kind, turn.attachment = TurnKind.COMMAND, None
    return turn


def correction(message: RawEvent, sender: str, at: float) -> Amendment:
    """What a sender's message says from a time (Unix) on."""
    return Amendment(
        str(message["event_id"]),
        str(message["room_id"]),
        sender,
        at,
        read_prompt(message)[0],
        attachment_of(message),
        content=message["content"],
    )


def command_line(text: str) -> str | None:
    """A command without its `!` or `!letta`; None for what is none."""
    match = _COMMAND.match(text.strip())
    if match is None:
        return None
    if match[1] is None:
        return "help" if text.strip().lower() == "!letta" else None
    return match[1].strip()


def thread_of(event: RawEvent) -> str:
    """The root of the thread an event stands in, "" outside of threads."""
    root = Event(event).thread
    return root if are_ids(root) else ""


def reply_of(event: RawEvent) -> str | None:
    """The event that a message replies to; None for none, also where that is only for clients
    without threads (spec: Threading)."""
    view = Event(event)
    return view.reply_to if are_ids(view.reply_to) and not view.is_falling_back else None


def is_whole(event: RawEvent) -> bool:
    """Whether it says which event of which room it is, and whose."""
    return are_ids(event.get("event_id"), event.get("room_id"), event.get("sender"))


def are_ids(*values: object) -> bool:
    """Whether all of these can be ids of Matrix (spec appendices)."""
    return all(
        isinstance(value, str) and 0 < len(value) <= 255 and _is_clean(value) for value in values
    )


@lru_cache(maxsize=4096)
def _is_clean(value: str) -> bool:
    # Everything that looks at an event looks at its ids, and people and rooms come again.
    return clean_text(value) == value


def sent_at(event: RawEvent) -> float:
    """When an event was sent (Unix time)."""
    # Nothing to go by counts as now.
    return Event(event).sent_at or time.time()
