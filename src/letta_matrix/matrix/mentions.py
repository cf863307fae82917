"""Who a message is meant for, and whom an agent's own words may ping. Pure functions."""

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

from letta_matrix.common.json_fields import items, mapping
from letta_matrix.matrix.pills import pills, with_labels

_USER = re.compile(
    r"(?<![\w@./:=+-])@(?P<localpart>[\w.=/+-]+)(?::(?P<server>[\w.-]+(?::\d+)?))?(?![\w@])"
)
_TRAILING = ".-/+=:"
_MARKS = ('"', "'", "\u201c", "\u2018", "\u201e", "\u00ab")
_CODE = re.compile(
    r"^ {0,3}(?P<fence>`{3,}|~{3,}).*?(?:^ {0,3}(?P=fence)[`~]*[ \t]*$|\Z)"
    r"|(?<!`)(?P<ticks>`+)(?!`).+?(?<!`)(?P=ticks)(?!`)",
    re.DOTALL | re.MULTILINE,
)
_LONGEST = 65_536
_MOST_BYTES = 1_000


def mentioned(content: Mapping[str, Any], candidates: Collection[str]) -> set[str]:
    """Which of `candidates` (user ids) a message's content mentions.

    Those in `m.mentions` (spec: User and room mentions), or without it those that pills of the
    formatted body lead to (matrix.to, `matrix:` URIs). Where that is none of them, user ids or
    `@localpart` as words of the body: clients that have `m.mentions` in every message know of
    none that was typed by hand. Quotes and code never count.
    """
    picked = _picked(content)
    if named := {user_id for user_id in candidates if user_id in picked}:
        return named
    typed = _typed(content)
    return {one for one in candidates if one in typed or one.partition(":")[0] in typed}


def names_in(content: Mapping[str, Any]) -> set[str]:
    """The user ids and `@localpart`s that a message's content may mention anybody by."""
    return {*_typed(content), *(one for one in _picked(content) if isinstance(one, str))}


def with_names(text: str, name_of: Callable[[str], str | None]) -> str:
    """`text` with the user ids and `@localpart`s in it as the names that `name_of` has for them,
    and Markdown links to users as their labels; others, code, and what stands in quotation marks
    stay as they are."""

    def one(match: re.Match[str]) -> str:
        user_id = _id_of(match)
        is_literal = match.string.endswith(_MARKS, 0, match.start())
        name = None if is_literal else name_of(user_id)
        return match[0] if not name else name + match[0][len(user_id) :]

    def named(piece: str) -> str:
        return _USER.sub(one, with_labels(piece))

    parts, start = list[str](), 0
    for code in _CODE.finditer(text):
        parts += [named(text[start : code.start()]), code[0]]
        start = code.end()
    return "".join([*parts, named(text[start:])])


def named_by_agent(markdown: str, members: Collection[str]) -> tuple[str, ...]:
    """The members of a room whose whole user id an agent wrote, to be pinged by its words.

    Never the room, never by a name alone, nothing in code or quotes; together at most 1,000
    bytes of ids, so that every event stays within its limit.
    """
    known = set(members)
    named: dict[str, None] = {}
    size = 0
    for user_id in _ids(_spoken(markdown)):
        if user_id in known and user_id not in named:
            size += len(user_id.encode()) + 3
            if size > _MOST_BYTES:
                break
            named[user_id] = None
    return tuple(named)


def _picked(content: Mapping[str, Any]) -> Collection[object]:
    """The users that the sender's client says are mentioned."""
    if "m.mentions" in content:
        return items(mapping(content["m.mentions"]).get("user_ids")) or []
    html = content.get("formatted_body")
    return pills(html[:_LONGEST]) if isinstance(html, str) else []


def _typed(content: Mapping[str, Any]) -> set[str]:
    body = content.get("body")
    return set(_ids(_spoken(body[:_LONGEST]))) if isinstance(body, str) else set()


def _spoken(text: str) -> str:
    """`text` without code and quotes."""
    lines = _CODE.sub(" ", text).split("\n")
    return "\n".join(line for line in lines if not line.lstrip().startswith(">"))


def _ids(text: str) -> list[str]:
    """User ids and `@localpart`s that stand in `text` as words of their own, in order."""
    return [_id_of(match) for match in _USER.finditer(text)]


def _id_of(match: re.Match[str]) -> str:
    localpart, server = match["localpart"], match["server"]
    if server is None:
        return "@" + localpart.rstrip(_TRAILING)
    return f"@{localpart}:{server.rstrip(_TRAILING)}"
