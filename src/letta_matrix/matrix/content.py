"""Contents of `m.room.message` events: an agent's text, and edits of it."""

import json
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

from letta_matrix.common.json_fields import mapping
from letta_matrix.matrix.formatting import render

MARKER = "org.letta.matrix"
"""Key of the marker that tells our own events apart (DESIGN 3.3)."""

BESIDE = "beside"
"""Key in the marker of a notice that stands beside a reply and does not end its turn; tells its
kind: `notice`, `approval` or `trace` (the tools in use)."""

OPEN = "open"
"""Key in the marker of an approval's question, or of the line about tools, while it waits for its
end: the turn goes on, though nothing of its text grows."""

ALSO = "also"
"""Key in the marker of a reply to several messages: the ids of those besides `in_reply_to`."""

MORE = "more"
"""Key in the marker of a part of a reply that is whole, and below which the turn goes on: by the
next part, or by a question."""

LIVE = "org.matrix.msc4357.live"
"""MSC4357: the message is still growing; its absence in the last edit says that it is complete."""

CURSOR = "▍"
"""Ends the text of interim versions: clients do not show MSC4357 yet."""

_REPLY_FALLBACK = re.compile(r"\A> (?:\* )?<@[^\s<>:]+:[^\s<>]+>.*(?:\n>.*)*\n{0,2}")
_LONGEST_EVENT_ID = "$" + "x" * 254


def text_content(
    markdown: str,
    *,
    marker: Mapping[str, object],
    msgtype: str = "m.text",
    live: bool = False,
    cursor: bool = True,
    relation: Mapping[str, object] | None = None,
    mentions: Collection[str] = (),
    plain: str | None = None,
) -> dict[str, object]:
    """A message that says `markdown` and pings the users in `mentions` alone, never the room
    (spec: User and room mentions).

    `live` marks an interim version (MSC4357) and, with `cursor`, shows one at its end. `relation`
    is its `m.relates_to`. `plain` is for whoever sees no HTML; by default that is the Markdown.
    """
    content = _body(markdown, msgtype, live and cursor, plain, grows=live)
    content |= _common(marker, live, mentions)
    return content | ({"m.relates_to": dict(relation)} if relation else {})


def without_reply_fallback(body: str, relation: Mapping[str, object]) -> str:
    """The own words of a message with this `m.relates_to`: clients before Matrix 1.13 quote in
    front of a reply what it answers. Other quotes, and those in threads, are the person's own."""
    is_reply = "m.in_reply_to" in relation and relation.get("is_falling_back") is not True
    if not is_reply or relation.get("rel_type") == "m.thread":
        return body
    return _REPLY_FALLBACK.sub("", body)


def thread_relation(root: str, reply_to: str) -> dict[str, object]:
    """The `m.relates_to` of a message in a thread; clients without threads show it as a reply
    to `reply_to` (spec: Threading)."""
    return {
        "rel_type": "m.thread",
        "event_id": root,
        "is_falling_back": True,
        "m.in_reply_to": {"event_id": reply_to},
    }


def reply_relation(reply_to: str, root: str = "") -> dict[str, object]:
    """The `m.relates_to` of a rich reply, in the thread that begins at `root` if it is in one
    (spec: Rich replies; Replies within threads)."""
    if not root:
        return {"m.in_reply_to": {"event_id": reply_to}}
    return {**thread_relation(root, reply_to), "is_falling_back": False}


def edit_content(
    markdown: str,
    *,
    target_event_id: str,
    marker: Mapping[str, object],
    live: bool = False,
    msgtype: str = "m.text",
    mentions: Collection[str] = (),
    plain: str | None = None,
) -> dict[str, object]:
    """An `m.replace` of `target_event_id` (the original event, never an edit of it), which pings
    the users in `mentions`; `plain` as in `text_content`.

    The fallback is the plain body alone: an edit carries its text three times as it is, and
    clients that know edits never look at it (spec: Event replacements).
    """
    common = _common(marker, live, mentions)
    new = _body(markdown, msgtype, live, plain, grows=True) | common
    return _replacing(target_event_id, new, common)


def said_again(
    content: Mapping[str, object], target_event_id: str, cause: str
) -> dict[str, object]:
    """The edit that says once more what a message, or an edit of it, has said last; with its own
    txn id (`cause`) in the marker. It pings nobody a second time."""
    new = dict(mapping(content.get("m.new_content")) or content)
    new.pop("m.relates_to", None)
    new[MARKER] = {**mapping(new.get(MARKER)), "txn": cause}
    return _replacing(target_event_id, new, {"m.mentions": {}, MARKER: new[MARKER]})


def _replacing(
    target_event_id: str, new: Mapping[str, object], common: Mapping[str, object]
) -> dict[str, object]:
    """An edit by which an event says `new`, with the fallback for clients that know no edits."""
    return {
        "msgtype": new["msgtype"],
        "body": f"* {new['body']}",
        **common,
        "m.new_content": new,
        "m.relates_to": {"rel_type": "m.replace", "event_id": target_event_id},
    }


def content_size(content: Mapping[str, object]) -> int:
    """Bytes of a content as canonical JSON (spec appendices), what event size limits count."""
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    return len(text.encode("utf-8", "replace"))


def edit_measure(marker: Mapping[str, object]) -> Callable[[str], int]:
    """The `measure` for `splitting.split`: bytes of the largest event that can carry a part."""

    def measure(markdown: str) -> int:
        content = edit_content(
            markdown, target_event_id=_LONGEST_EVENT_ID, marker=marker, live=True
        )
        return content_size(content)

    return measure


def _body(
    markdown: str, msgtype: str, with_cursor: bool, plain: str | None, *, grows: bool
) -> dict[str, object]:
    formatted = render(markdown)
    if plain is not None:
        formatted = replace(formatted, body=plain)
    if with_cursor:
        formatted = formatted.with_cursor(CURSOR)
    content: dict[str, object] = {"msgtype": msgtype, "body": formatted.body}
    # Element shows nothing of a message whose versions are in part formatted and in part not.
    if formatted.html and (grows or not formatted.is_plain):
        content |= {"format": "org.matrix.custom.html", "formatted_body": formatted.html}
    return content


def _common(
    marker: Mapping[str, object], live: bool, mentions: Collection[str]
) -> dict[str, object]:
    named = {"user_ids": list(mentions)} if mentions else {}
    common: dict[str, object] = {"m.mentions": named, MARKER: dict(marker)}
    if live:
        common[LIVE] = {}
    return common
