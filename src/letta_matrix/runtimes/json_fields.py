"""JSON that may hold anything: nonsense counts as nothing, a wrong type as empty."""

from typing import Any, cast

from letta_matrix.common.lenient_json import loads

Json = dict[str, Any]


def parse_json(text: str | bytes) -> object:
    """The value (see `loads`), None for what is no JSON or is nested too deeply."""
    try:
        return loads(text)
    except ValueError:
        return None


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


def string_of(item: Json, name: str) -> str:
    """A field that is a string, "" if it is none."""
    found = item.get(name)
    return found if isinstance(found, str) else ""


def id_of(item: Json) -> str:
    """The item's id, "" if it has none."""
    return string_of(item, "id")
