"""Contents of `m.room.message` events: an agent's text, and edits of it."""

import json
from collections.abc import Callable, Mapping

from letta_matrix.matrix.formatting import Formatted, render

MARKER = "org.letta.matrix"
"""Key of the marker that tells our own events apart (DESIGN 3.3)."""

LIVE = "org.matrix.msc4357.live"
"""MSC4357: the message is still growing; its absence in the last edit says that it is complete."""

CURSOR = "▍"
"""Ends the text of interim versions: clients do not show MSC4357 yet."""

_LONGEST_EVENT_ID = "$" + "x" * 254


def text_content(
    markdown: str,
    *,
    marker: Mapping[str, object],
    msgtype: str = "m.text",
    live: bool = False,
) -> dict[str, object]:
    """A message that says `markdown` and pings nobody (spec: User and room mentions).

    `live` marks an interim version (MSC4357) and shows a cursor at its end.
    """
    return _body(markdown, msgtype, live) | _common(marker, live)


def edit_content(
    markdown: str,
    *,
    target_event_id: str,
    marker: Mapping[str, object],
    live: bool = False,
) -> dict[str, object]:
    """An `m.replace` of `target_event_id` (the original event, never an edit of it).

    The fallback is the plain body alone: an edit carries its text twice as it is, and clients
    that know edits never look at it (spec: Event replacements).
    """
    new = _body(markdown, "m.text", live) | _common(marker, live)
    return {
        "msgtype": "m.text",
        "body": f"* {new['body']}",
        **_common(marker, live),
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


def _body(markdown: str, msgtype: str, live: bool) -> dict[str, object]:
    formatted = render(markdown)
    if live:
        formatted = formatted.with_cursor(CURSOR)
    content: dict[str, object] = {"msgtype": msgtype, "body": formatted.body}
    return content | _formatted(formatted)


def _formatted(formatted: Formatted) -> dict[str, object]:
    if formatted.html is None:
        return {}
    return {"format": "org.matrix.custom.html", "formatted_body": formatted.html}


def _common(marker: Mapping[str, object], live: bool) -> dict[str, object]:
    common: dict[str, object] = {"m.mentions": {}, MARKER: dict(marker)}
    if live:
        common[LIVE] = {}
    return common
