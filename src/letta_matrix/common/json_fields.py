"""JSON that may hold anything: nonsense counts as nothing, a wrong type as empty."""

from typing import Any, cast

from letta_matrix.common.lenient_json import loads

Json = dict[str, Any]


def parse_json(text: str | bytes) -> object:
    """The value (see `loads`), None for what is no JSON or is nested too deeply. Numbers are as
    they stand there: people allow what they were shown, and nothing that rounds to it."""
    try:
        return loads(text, exact=True)
    except ValueError:
        return None


def text_of(content: object) -> str:
    """The text of a message's content, a string or a list of parts."""
    if isinstance(content, str):
        return content
    return "".join(str(part.get("text") or "") for part in as_list(content))


def mapping(value: object) -> Json:
    """`value` if it is a JSON object, else an empty one."""
    return cast("Json", value) if isinstance(value, dict) else {}


def items(value: object) -> list[Any] | None:
    """`value` if it is a JSON array, else None."""
    return cast("list[Any]", value) if isinstance(value, list) else None


def as_list(value: object) -> list[Json]:
    """The objects in a JSON array."""
    return [cast("Json", item) for item in items(value) or [] if isinstance(item, dict)]


def as_texts(value: object) -> list[str]:
    """The strings in a JSON array."""
    return [item for item in items(value) or [] if isinstance(item, str)]


def string_of(item: Json, name: str) -> str:
    """A field that is a string, "" if it is none."""
    found = item.get(name)
    return found if isinstance(found, str) else ""


def id_of(item: Json) -> str:
    """The item's id, "" if it has none."""
    return string_of(item, "id")
