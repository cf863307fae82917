"""Reading events, whose shape nobody guarantees."""

from collections.abc import Mapping
from typing import Any

from letta_matrix.common.json_fields import mapping, string_of
from letta_matrix.matrix.content import MARKER

RawEvent = Mapping[str, Any]

_LARGEST = 2**53
"""Bound of integers in events (spec appendices: canonical JSON)."""


class Event:
    """What an event says of itself and of others; what has another shape counts as not said.

    `content` is what it says, `relation` its `m.relates_to` (spec: Forming relationships between
    events).
    """

    __slots__ = ("content", "raw", "relation")

    def __init__(self, raw: RawEvent) -> None:
        self.raw = raw
        self.content = mapping(raw.get("content"))
        self.relation = mapping(self.content.get("m.relates_to"))

    @property
    def marker(self) -> Mapping[str, Any]:
        """What tells our own events apart, empty for those of others."""
        return mapping(self.content.get(MARKER))

    @property
    def relations(self) -> Mapping[str, Any]:
        """What the homeserver bundles with it, by the type of the relation."""
        return mapping(mapping(self.raw.get("unsigned")).get("m.relations"))

    @property
    def is_edit(self) -> bool:
        return self.relation.get("rel_type") == "m.replace"

    @property
    def target(self) -> str:
        """The event it edits or reacts to, or whose thread it stands in; "" for none."""
        return string_of(self.relation, "event_id")

    @property
    def edited(self) -> str:
        """The message that it is an edit of, "" for none."""
        return self.target if self.is_edit else ""

    @property
    def thread(self) -> str:
        """The root of the thread it stands in, "" outside of threads."""
        return self.target if self.relation.get("rel_type") == "m.thread" else ""

    @property
    def reply_to(self) -> str:
        """The event it replies to, even if only for clients without threads; "" for none."""
        return string_of(mapping(self.relation.get("m.in_reply_to")), "event_id")

    @property
    def is_falling_back(self) -> bool:
        """Whether it is a reply only for clients without threads (spec: Threading)."""
        return self.relation.get("is_falling_back") is True

    @property
    def membership(self) -> str:
        """What an `m.room.member` event says that somebody is in a room, "" if it does not say."""
        return string_of(self.content, "membership")

    @property
    def sent_ms(self) -> int:
        """When it was sent, in milliseconds of Unix time; 0 if it does not say."""
        told = self.raw.get("origin_server_ts")
        return int(told) if isinstance(told, int | float) and 0 <= told < _LARGEST else 0

    @property
    def sent_at(self) -> float:
        """When it was sent (Unix time); 0 if it does not say."""
        return self.sent_ms / 1000


def newest_edit(event: RawEvent) -> Mapping[str, Any]:
    """The content of an event's latest edit, which the homeserver bundles with it (spec: Event
    replacements); empty if there is none."""
    edit = mapping(Event(event).relations.get("m.replace"))
    return mapping(mapping(edit.get("content")).get("m.new_content"))


def newest_content(event: RawEvent) -> Mapping[str, Any]:
    """What an event says in its latest version."""
    return newest_edit(event) or mapping(event.get("content"))


def corrected(event: RawEvent) -> Mapping[str, Any]:
    """An event as its latest version, where it stood: what it answers or belongs to does not
    change (spec: Event replacements)."""
    content, new = mapping(event.get("content")), newest_edit(event)
    kept = {"m.relates_to": content["m.relates_to"]} if "m.relates_to" in content else {}
    return {**event, "content": {**new, **kept}} if new else event


def replaced(event: RawEvent) -> tuple[str, Mapping[str, Any]] | None:
    """The message that an edit is of and what that says now; None for what is no edit."""
    edit = Event(event)
    new = mapping(edit.content.get("m.new_content"))
    return (edit.edited, new) if event.get("state_key") is None and edit.edited and new else None


def redacted(event: RawEvent) -> str | None:
    """The event that a redaction removes, None for what is no redaction. Before room version 11
    it is named outside of the content (spec: m.room.redaction)."""
    if event.get("type") != "m.room.redaction" or event.get("state_key") is not None:
        return None
    target = mapping(event.get("content")).get("redacts") or event.get("redacts")
    return target if isinstance(target, str) and target else None
