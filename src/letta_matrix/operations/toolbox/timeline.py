"""Messages of a room as a model reads them."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NotRequired

from typing_extensions import TypedDict

from letta_matrix.matrix.content import BESIDE, CURSOR, LIVE, MARKER, without_reply_fallback
from letta_matrix.matrix.events import Event, newest_content, newest_edit
from letta_matrix.matrix.formatting import clean_text
from letta_matrix.operations.toolbox.results import cut, filled

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
    said = Event(event)
    if event.get("type") not in _MESSAGES or not said.content or said.is_edit:
        return False
    beside = BESIDE in said.marker or said.content.get("msgtype") == "m.notice"
    return not (MARKER in said.content and beside)


def as_edited(edit: dict[str, Any]) -> dict[str, Any]:
    """The message that an edit makes; of what it was before, only whose it is. Any other event is
    itself."""
    view = Event(edit)
    if not view.edited:
        return edit
    rest = {key: value for key, value in view.content.items() if key != "m.relates_to"}
    bundled = {"m.relations": {"m.replace": edit}}
    return {**edit, "event_id": view.edited, "content": rest, "unsigned": bundled}


def said(event: Mapping[str, Any]) -> str:
    """The words of a message, in their newest version; without what clients before Matrix 1.13
    quote of the message it replies to."""
    return _said(Event(event), newest_content(event))


def entry(event: Mapping[str, Any], names: Mapping[str, str], length: int) -> dict[str, object]:
    """A message with at most `length` characters of its text; `names` are those of agents."""
    view, edit, sender = Event(event), newest_edit(event), str(event.get("sender"))
    newest, kind = edit or view.content, event.get("type")
    kind = kind if kind not in _MESSAGES else newest.get("msgtype")
    shown: dict[str, object] = {"event_id": str(event.get("event_id")), "sender": sender}
    if sender in names:
        shown["agent"] = cut(names[sender], 80)
    shown["time"] = _time(view.sent_ms)
    if isinstance(kind, str) and kind != "m.text":
        shown["type"] = cut(kind, 80)
    shown["text"] = cut(_said(view, newest), length)
    reply_to = "" if view.relation.get("is_falling_back") else view.reply_to
    return shown | filled(
        thread=cut(view.thread, 255),
        reply_to=cut(reply_to, 255),
        edited=bool(edit),
        unfinished=LIVE in newest,
    )


def _said(view: Event, newest: Mapping[str, Any]) -> str:
    if view.raw.get("type") == "m.room.encrypted":
        return "(encrypted)"
    if not view.raw.get("content"):
        return "(removed)"
    body = newest.get("body")
    text = clean_text(body) if isinstance(body, str) else ""
    text = without_reply_fallback(text, view.relation).strip()
    return text.removesuffix(CURSOR).rstrip() if LIVE in newest else text


def _time(milliseconds: int) -> str:
    if not 0 < milliseconds < 2**47:
        return ""
    return datetime.fromtimestamp(milliseconds // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
