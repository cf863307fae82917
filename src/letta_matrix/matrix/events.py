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
