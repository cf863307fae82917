"""Reading events and other JSON whose shape nobody guarantees."""

from collections.abc import Mapping
from typing import Any, cast


def mapping(value: object) -> Mapping[str, Any]:
    """`value` if it is a JSON object, else an empty one."""
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}


def items(value: object) -> list[Any] | None:
    """`value` if it is a JSON array, else None."""
    return cast("list[Any]", value) if isinstance(value, list) else None


def newest_edit(event: Mapping[str, Any]) -> Mapping[str, Any]:
    """The content of an event's latest edit, which the homeserver bundles with it (spec: Event
    replacements); empty if there is none."""
    relations = mapping(mapping(event.get("unsigned")).get("m.relations"))
    return mapping(mapping(mapping(relations.get("m.replace")).get("content")).get("m.new_content"))


def newest_content(event: Mapping[str, Any]) -> Mapping[str, Any]:
    """What an event says in its latest version."""
    return newest_edit(event) or mapping(event.get("content"))


def corrected(event: Mapping[str, Any]) -> Mapping[str, Any]:
    """An event as its latest version, where it stood: what it answers or belongs to does not
    change (spec: Event replacements)."""
    content, new = mapping(event.get("content")), newest_edit(event)
    kept = {"m.relates_to": content["m.relates_to"]} if "m.relates_to" in content else {}
    return {**event, "content": {**new, **kept}} if new else event


def replaced(event: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]] | None:
    """The message that an edit is of and what that says now; None for what is no edit."""
    content = mapping(event.get("content"))
    relation = mapping(content.get("m.relates_to"))
    target, new = relation.get("event_id"), mapping(content.get("m.new_content"))
    if event.get("state_key") is not None or relation.get("rel_type") != "m.replace":
        return None
    return (target, new) if isinstance(target, str) and target and new else None


def redacted(event: Mapping[str, Any]) -> str | None:
    """The event that a redaction removes, None for what is no redaction. Before room version 11
    it is named outside of the content (spec: m.room.redaction)."""
    if event.get("type") != "m.room.redaction" or event.get("state_key") is not None:
        return None
    target = mapping(event.get("content")).get("redacts") or event.get("redacts")
    return target if isinstance(target, str) and target else None
