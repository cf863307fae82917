"""What an event says to an agent: its words as text, its files."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from letta_matrix.common.json_fields import items, mapping
from letta_matrix.conversations.attachments import caption
from letta_matrix.conversations.looks import plain_name
from letta_matrix.matrix.content import BESIDE, CURSOR, LIVE, MARKER, without_reply_fallback
from letta_matrix.matrix.events import Event, newest_content
from letta_matrix.matrix.formatting import clean_text
from letta_matrix.matrix.mentions import with_names
from letta_matrix.matrix.pills import pills
from letta_matrix.matrix.polls import STARTS, question_of

SAID = ("m.room.message", "m.sticker", *STARTS)
"""Types of the events that say something that can be told."""

_TEXT_TYPES = ("m.text", "m.emote")
_FILE_TYPES = ("m.image", "m.file", "m.audio", "m.video")
_GALLERIES = ("dm.filament.gallery", "m.gallery")
_FILE_KEYS = ("msgtype", "body", "filename", "url", "file", "info")
_NOT_SPOKEN = ("m.notice", "m.server_notice")
_HANDSHAKE = "m.key.verification."
# What encrypts these leaves their relation in the open.
_ABOUT_ANOTHER = ("m.replace", "m.reference", "m.annotation")
_MAX_PROMPT = 200_000
_MOST_HTML = 65_536
_MOST_FILES = 20


def read_prompt(event: Mapping[str, Any]) -> tuple[str | None, bool]:
    """What an agent is told, and whether the event speaks to it at all; None for what does, and
    cannot be told in words."""
    view, kind = Event(event), event.get("type")
    content, relation = view.content, view.relation
    if event.get("state_key") is not None:
        return None, False
    if kind == "m.room.encrypted":
        return None, relation.get("rel_type") not in _ABOUT_ANOTHER
    if kind not in SAID or not content or view.is_edit:
        return None, False
    if kind == "m.room.message":
        return _message(content, relation)
    told = _told(kind, content)
    return (told[:_MAX_PROMPT] if told else None), True


def attachment_of(event: Mapping[str, Any]) -> Mapping[str, object] | None:
    """What is kept of an event besides its words: its file, a gallery's files as `items`, of what
    is no text its `msgtype` alone."""
    content, kind = mapping(event.get("content")), event.get("type")
    if kind == "m.sticker":
        return _file(content, "m.image")
    msgtype = content.get("msgtype")
    if kind not in SAID or msgtype in (*_TEXT_TYPES, "m.location"):
        return None
    if msgtype in _FILE_TYPES:
        return _file(content, msgtype)
    if msgtype in _GALLERIES:
        shown = [mapping(one) for one in items(content.get("itemtypes")) or []]
        files = [_file(one, one.get("itemtype")) for one in shown[:_MOST_FILES]]
        return {"msgtype": msgtype, "items": [one for one in files if _is_file(one)]}
    return {"msgtype": str(msgtype or kind)}


def files_of(attachment: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    """The contents of the files in what `attachment_of` gave."""
    if attachment is None or _is_file(attachment):
        return [] if attachment is None else [attachment]
    return [mapping(one) for one in items(attachment.get("items")) or []]


def quotable(event: Mapping[str, Any], *, is_ours: bool) -> str:
    """What a message says in its newest version, in a few words where it is no text; "" for what
    says nothing, and for notices and traces of our own."""
    kind, content = event.get("type", "m.room.message"), newest_content(event)
    if kind in SAID and kind != "m.room.message":
        return _told(kind, content) if content else ""
    body, msgtype = content.get("body"), content.get("msgtype")
    beside = BESIDE in mapping(content.get(MARKER)) or msgtype == "m.notice"
    if kind not in SAID or not isinstance(body, str) or (is_ours and beside):
        return ""
    if msgtype in _FILE_TYPES:
        filename = content.get("filename")
        name = plain_name(filename if isinstance(filename, str) else body)
        return f"[{msgtype.removeprefix('m.')}: {name}] {caption(content)}".rstrip()
    text = _words(content, body, Event(event).relation)
    text = text.removesuffix(CURSOR).rstrip() if LIVE in content else text
    return "\n".join(text.splitlines())


def _message(content: Mapping[str, Any], relation: Mapping[str, Any]) -> tuple[str | None, bool]:
    msgtype, body = content.get("msgtype"), content.get("body")
    if not isinstance(msgtype, str) or msgtype in _NOT_SPOKEN or msgtype.startswith(_HANDSHAKE):
        return None, False
    if msgtype in _FILE_TYPES:
        return _words(content, caption(content), {})[:_MAX_PROMPT], True
    text = _words(content, body, relation) if isinstance(body, str) else ""
    if msgtype in _TEXT_TYPES:
        told = f"* {text}" if msgtype == "m.emote" else text
        return (told[:_MAX_PROMPT], True) if text else (None, False)
    if msgtype in _GALLERIES:
        return text[:_MAX_PROMPT], True
    if msgtype == "m.location":
        text, what = f"{text} {clean_text(str(content.get('geo_uri', '')))}".strip(), "a location"
    else:
        what = f"a message of the type {plain_name(msgtype)}"
    return (f"({what}: {text})"[:_MAX_PROMPT] if text else None), True


def _told(kind: object, content: Mapping[str, Any]) -> str:
    """A sticker or a poll in words."""
    if kind == "m.sticker":
        body = content.get("body")
        what = plain_name(body, 500) if isinstance(body, str) else ""
        return f"(a sticker: {what})" if what else "(a sticker)"
    question, options = question_of(content)
    if not question:
        return ""
    lines = [f"{number}. {option}" for number, option in enumerate(options, 1)]
    return "\n".join([f"(a poll: {question}", *lines]) + ")"


def _words(content: Mapping[str, Any], body: str, relation: Mapping[str, Any]) -> str:
    """A message's own words, with whom it mentions by the names that its sender saw."""
    html = content.get("formatted_body")
    shown = html[:_MOST_HTML] if isinstance(html, str) else ""
    return _named(without_reply_fallback(body, relation), shown)


# One message is looked at several times: whom it is for, and what it says.
@lru_cache(maxsize=4)
def _named(text: str, html: str) -> str:
    found = pills(html) if html else {}
    labels = {user_id: plain_name(label) for user_id, label in found.items()}
    return clean_text(with_names(text, labels.get)).strip()


def _file(content: Mapping[str, Any], msgtype: object) -> Mapping[str, object]:
    return {key: content[key] for key in _FILE_KEYS if key in content} | {"msgtype": msgtype}


def _is_file(content: Mapping[str, Any]) -> bool:
    return content.get("msgtype") in _FILE_TYPES
