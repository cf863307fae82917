"""The contents of polls, stable and as MSC3381 had them, and the texts in them (MSC1767)."""

from collections.abc import Mapping
from typing import Any

from letta_matrix.common.json_fields import items, mapping
from letta_matrix.matrix.formatting import clean_text

POLL = "org.matrix.msc3381.poll"
TEXT = "org.matrix.msc1767.text"
STARTS = (f"{POLL}.start", "m.poll.start")
"""Types of the events that begin a poll."""

KEYS = (*STARTS, "m.poll")
"""Keys of their contents under which the poll stands."""

MOST_OPTIONS = 20


def first_of(content: object, *keys: str) -> object:
    """The first of these keys' values that an object has."""
    found = mapping(content)
    return next((found[key] for key in keys if key in found), None)


def text_of(block: object) -> str:
    """The words of a text block: a string, or stably a list of representations (MSC1767)."""
    found = first_of(block, TEXT, "m.text", "body")
    if (several := items(found)) is not None:
        found = next((mapping(one).get("body") for one in several), "")
    return clean_text(found).strip() if isinstance(found, str) else ""


def question_of(content: Mapping[str, Any]) -> tuple[str, list[str]]:
    """What a poll asks ("" for what is none) and the options it gives."""
    start = mapping(first_of(content, *KEYS))
    answers = (items(start.get("answers")) or [])[:MOST_OPTIONS]
    return text_of(start.get("question")), [text_of(answer) for answer in answers]
