"""Rooms that one of our users is coming into: what arrives there waits for what was said before."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from letta_matrix.common.json_fields import mapping
from letta_matrix.conversations.audience import Refers
from letta_matrix.store.amendments import Amendment
from letta_matrix.store.inbox import InboxEntry, InboxState
from letta_matrix.store.turns import TurnKind

_REFERS = "org.letta.matrix.refers"
"""Where an event that is put off keeps what was found of what it refers to."""


class Openings:
    """The rooms that are being opened, and the edits and redactions that came for them."""

    def __init__(self) -> None:
        self._open_by: dict[str, set[str]] = {}
        self._meanwhile: dict[str, list[Amendment]] = {}

    def __contains__(self, room_id: str) -> bool:
        return room_id in self._open_by

    def begin(self, room_id: str, by: str) -> None:
        """One of our users comes into a room `by` a turn: what arrives for it meanwhile waits."""
        self._open_by.setdefault(room_id, set()).add(by)

    def end(self, room_id: str, by: str) -> bool:
        """It is in, or not to be; whether nothing waits any more that did until now."""
        turns = self._open_by.get(room_id, set())
        if by not in turns:
            return False
        turns.remove(by)
        if not turns:
            del self._open_by[room_id]
            self._meanwhile.pop(room_id, None)
        return not turns

    def put_off(self, entry: InboxEntry, refers: Refers) -> InboxEntry:
        """What speaks to an agent waits until its room is open, and so does what is for nobody: it
        may be for the one of us who is just coming in, and what waited before it is learned from
        before it is. An invite is what opens the room."""
        is_invite = any(turn.kind is TurnKind.INVITE for turn in entry.turns)
        waits = bool(entry.turns) or entry.state is InboxState.IGNORED
        if not waits or is_invite or entry.room_id not in self:
            return entry
        event = keeping(entry.event, refers)
        return replace(entry, event=event, state=InboxState.PARKED, turns=[])

    def noted(self, entry: InboxEntry) -> None:
        """Keep what an entry amends: what was read of its room before may say the old."""
        if entry.amends is not None and entry.room_id in self:
            self._meanwhile.setdefault(entry.room_id, []).append(entry.amends)

    def amendments(self, room_id: str) -> list[Amendment]:
        """What has come for a room that is being opened."""
        return self._meanwhile.get(room_id, [])


def keeping(event: Mapping[str, Any], refers: Refers) -> Mapping[str, Any]:
    """An event that is routed later, with what was found of what it refers to."""
    return {**event, _REFERS: asdict(refers)}


def kept_refers(event: Mapping[str, Any]) -> Refers:
    """What was found of what an event refers to when it was put off."""
    known = mapping(event.get(_REFERS))
    return Refers(*(str(known.get(name, "")) for name in Refers.__slots__))
