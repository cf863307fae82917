"""Messages of a room as a model reads them."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NotRequired

from typing_extensions import TypedDict

from letta_matrix.matrix.content import (
    BESIDE,
    CURSOR,
    LIVE,
    MARKER,
    without_reply_fallback,
)
from letta_matrix.matrix.events import mapping, newest_content, newest_edit
from letta_matrix.matrix.formatting import clean_text
from letta_matrix.toolbox.results import cut

_MESSAGES = ("m.room.message", "m.room.encrypted")
FILTER = {"types": list(_MESSAGES)}
"""A RoomEventFilter: the events that `is_message` may accept."""


class Message(TypedDict):
    """A message; `agent` is the name of the agent that wrote it, `unfinished` that it is still
    growing."""

    event_id: str
    sender: str
    agent: NotRequired[str]
    time: str
    type: NotRequired[str]
    text: str
    thread: NotRequired[str]
    reply_to: NotRequired[str]
    edited: NotRequired[bool]
    unfinished: NotRequired[bool]


def is_message(event: Mapping[str, Any]) -> bool:
    """Whether it is something that was said: no edit, nothing removed, none of our own notices
    and traces."""
    content = mapping(event.get("content"))
    if event.get("type") not in _MESSAGES or not content:
        return False
    if mapping(content.get("m.relates_to")).get("rel_type") == "m.replace":
        return False
    beside = BESIDE in mapping(content.get(MARKER))
    return not (MARKER in content and (beside or content.get("msgtype") == "m.notice"))


def as_edited(edit: dict[str, Any]) -> dict[str, Any]:
    """The message that an edit makes; of what it was before, only whose it is. Any other event is
    itself."""
    content = mapping(edit.get("content"))
    relation = mapping(content.get("m.relates_to"))
    if relation.get("rel_type") != "m.replace" or not isinstance(relation.get("event_id"), str):
        return edit
    rest = {key: value for key, value in content.items() if key != "m.relates_to"}
    bundled = {"m.relations": {"m.replace": edit}}
    return {**edit, "event_id": relation["event_id"], "content": rest, "unsigned": bundled}


def said(event: Mapping[str, Any]) -> str:
    """The words of a message, in their newest version; without what clients before Matrix 1.13
    quote of the message it replies to."""
    if event.get("type") == "m.room.encrypted":
        return "(encrypted)"
    if not event.get("content"):
        return "(removed)"
    content = newest_content(event)
    body = content.get("body")
    text = clean_text(body) if isinstance(body, str) else ""
    relation = mapping(mapping(event.get("content")).get("m.relates_to"))
    text = without_reply_fallback(text, relation).strip()
    return text.removesuffix(CURSOR).rstrip() if LIVE in content else text


def entry(event: Mapping[str, Any], names: Mapping[str, str], length: int) -> dict[str, object]:
    """A message with at most `length` characters of its text; `names` are those of agents."""
    content = mapping(event.get("content"))
    relation = mapping(content.get("m.relates_to"))
    sender = str(event.get("sender"))
    shown: dict[str, object] = {"event_id": str(event.get("event_id")), "sender": sender}
    if sender in names:
        shown["agent"] = cut(names[sender], 80)
    shown["time"] = _time(event.get("origin_server_ts"))
    msgtype = newest_content(event).get("msgtype")
    kind = event.get("type")
    kind = kind if kind not in _MESSAGES else msgtype
    if isinstance(kind, str) and kind != "m.text":
        shown["type"] = cut(kind, 80)
    shown["text"] = cut(said(event), length)
    shown |= _relations(relation)
    shown |= {"edited": True} if newest_edit(event) else {}
    return shown | ({"unfinished": True} if LIVE in newest_content(event) else {})


def _relations(relation: Mapping[str, Any]) -> dict[str, object]:
    shown: dict[str, object] = {}
    if relation.get("rel_type") == "m.thread":
        shown["thread"] = cut(str(relation.get("event_id")), 255)
    reply_to = mapping(relation.get("m.in_reply_to")).get("event_id")
    if isinstance(reply_to, str) and not relation.get("is_falling_back"):
        shown["reply_to"] = cut(reply_to, 255)
    return shown


def _time(milliseconds: object) -> str:
    if not isinstance(milliseconds, int) or not 0 <= milliseconds < 2**47:
        return ""
    return datetime.fromtimestamp(milliseconds // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
