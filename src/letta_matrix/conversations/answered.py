"""What our own events tell of the messages that they answer: whatever becomes of the database, the
rooms know it. Pure functions."""

from collections.abc import Iterable, Mapping
from typing import Any

from letta_matrix.common.json_fields import as_texts, mapping
from letta_matrix.matrix.content import ALSO, BESIDE, LIVE, MARKER, OPEN
from letta_matrix.matrix.events import Event, newest_content
from letta_matrix.store.turn_ids import turn_id_of


def ended_in(said: Iterable[Mapping[str, Any]]) -> set[str]:
    """The ids of the messages that events of ours, the newest first, have answered to the end, and
    of the turns that did so. What stands beside a reply ends nothing, nor does one that grows, or
    that waits for a question's answer or for a tool."""
    grows: dict[str, bool] = {}
    parts: dict[str, set[str]] = {}
    waits: dict[str, set[str]] = {}
    for raw in said:
        event = Event(raw)
        if not event.marker:
            continue
        new = mapping(event.content.get("m.new_content")) if event.is_edit else newest_content(raw)
        message = event.edited or str(raw.get("event_id"))
        # The first that is seen of a message is its newest version.
        grows.setdefault(message, LIVE in new or OPEN in mapping(new.get(MARKER)))
        for cause in _causes(event.marker):
            of_it = waits if BESIDE in event.marker else parts
            of_it.setdefault(cause, set()).add(message)
    return {
        cause
        for cause, of_it in parts.items()
        if not any(grows[one] for one in of_it | waits.get(cause, set()))
    }


def _causes(marker: Mapping[str, Any]) -> list[str]:
    also, agent_id = as_texts(marker.get(ALSO)), str(marker.get("agent_id"))
    named = [marker.get("in_reply_to"), marker.get("turn_id"), *also]
    named += [turn_id_of(event_id, agent_id) for event_id in also]
    return [cause for cause in named if isinstance(cause, str)]
