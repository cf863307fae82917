"""JSON that may hold anything: nonsense counts as nothing, a wrong type as empty."""

import json
import re
from typing import Any, cast

Json = dict[str, Any]

_HALF = re.compile(r"\\u[dD][89a-fA-F]")


def parse_json(text: str | bytes) -> object:
    """The value, None for what is no JSON (bytes: in UTF-8) or is nested too deeply.

    Halves of surrogate pairs in its strings, which nothing could store or send, are replaced.
    """
    try:
        text = text if isinstance(text, str) else text.decode()
        value: object = json.loads(text)
        if _HALF.search(text):
            value = json.loads(whole_text(json.dumps(value, ensure_ascii=False)))
    except (ValueError, RecursionError):
        return None
    return value


def whole_text(text: str) -> str:
    """The text with a replacement character for each half of a surrogate pair."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


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
