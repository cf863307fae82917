"""Fields of JSON that may hold anything: what has the wrong type counts as empty."""

from typing import Any, cast

Json = dict[str, Any]


def text_of(content: object) -> str:
    """The text of a message's content, a string or a list of parts."""
    if isinstance(content, str):
        return content
    return "".join(str(part.get("text") or "") for part in as_list(content))


def as_dict(value: object) -> Json:
    return cast("Json", value) if isinstance(value, dict) else {}


def as_list(value: object) -> list[Json]:
    if not isinstance(value, list):
        return []
    return [cast("Json", item) for item in cast("list[object]", value) if isinstance(item, dict)]


def as_texts(value: object) -> list[str]:
    if not isinstance(value, list):
        return []
    return [item for item in cast("list[object]", value) if isinstance(item, str)]


def id_of(item: Json) -> str:
    """The item's id, "" if it has none."""
    found = item.get("id")
    return found if isinstance(found, str) else ""
