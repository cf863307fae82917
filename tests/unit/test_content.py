"""Event contents: mentions, markers, live versions, edits, sizes."""

import json
from typing import cast

from letta_matrix.matrix.content import (
    content_size,
    edit_content,
    edit_measure,
    text_content,
)

MARKER = {"agent_id": "agent-1", "turn_id": "t1"}


def test_plain_text() -> None:
    assert text_content("hello", marker=MARKER) == {
        "msgtype": "m.text",
        "body": "hello",
        "m.mentions": {},
        "org.letta.matrix": MARKER,
    }


def test_several_lines_are_formatted() -> None:
    assert text_content("one\ntwo", marker=MARKER)["formatted_body"] == "one<br>\ntwo"


def test_what_is_shown_without_html_may_differ() -> None:
    content = edit_content("**a**", target_event_id="$x", marker=MARKER, live=True, plain="a")
    new = content["m.new_content"]
    assert isinstance(new, dict)
    assert (content["body"], new["body"]) == ("* a▍", "a▍")
    assert new["formatted_body"] == "<strong>a▍</strong>"


def test_every_version_of_a_growing_message_is_formatted() -> None:
    text = "Two\nlines, **one** bold.\n\n```\ncode"
    for end in range(1, len(text)):
        first = text_content(text[:end], marker=MARKER, live=True)
        edit = edit_content(text[:end], target_event_id="$x", marker=MARKER, live=True)
        for version in (first, edit["m.new_content"]):
            shown = cast("dict[str, object]", version)
            assert shown["format"] == "org.matrix.custom.html"
            assert str(shown["formatted_body"]).count("▍") == 1


def test_formatted_live_notice() -> None:
    content = text_content("**a**", marker=MARKER, msgtype="m.notice", live=True)
    assert content == {
        "msgtype": "m.notice",
        "body": "**a**▍",
        "format": "org.matrix.custom.html",
        "formatted_body": "<strong>a▍</strong>",
        "m.mentions": {},
        "org.letta.matrix": MARKER,
        "org.matrix.msc4357.live": {},
    }


def test_live_edit_marks_both_versions() -> None:
    content = edit_content("a", target_event_id="$x", marker=MARKER, live=True)
    assert content == {
        "msgtype": "m.text",
        "body": "* a▍",
        "m.mentions": {},
        "org.letta.matrix": MARKER,
        "org.matrix.msc4357.live": {},
        "m.new_content": {
            "msgtype": "m.text",
            "body": "a▍",
            "format": "org.matrix.custom.html",
            "formatted_body": "a▍",
            "m.mentions": {},
            "org.letta.matrix": MARKER,
            "org.matrix.msc4357.live": {},
        },
        "m.relates_to": {"rel_type": "m.replace", "event_id": "$x"},
    }


def test_final_edit_has_neither_cursor_nor_live_marker() -> None:
    content = edit_content("**a**", target_event_id="$x", marker=MARKER)
    text = json.dumps(content, ensure_ascii=False)
    assert "▍" not in text
    assert "msc4357" not in text
    assert content["body"] == "* **a**"


def test_nobody_is_pinged() -> None:
    text = "@room and [Alice](https://matrix.to/#/@alice:example.org)"
    content = edit_content(text, target_event_id="$x", marker=MARKER)
    new = content["m.new_content"]
    assert isinstance(new, dict)
    assert content["m.mentions"] == new["m.mentions"] == {}


def test_the_marker_is_copied() -> None:
    marker: dict[str, object] = {"agent_id": "a"}
    content = text_content("x", marker=marker)
    marker["agent_id"] = "b"
    assert content["org.letta.matrix"] == {"agent_id": "a"}


def test_size_counts_the_bytes_of_canonical_json() -> None:
    assert content_size({"b": "日\n", "a": {}}) == len('{"a":{},"b":"日\\n"}'.encode())


def test_edit_measure_covers_every_event_of_a_part() -> None:
    measure = edit_measure(MARKER)
    for markdown in ("", "hello", "**a** <b>\n- x"):
        live = text_content(markdown, marker=MARKER, live=True)
        final = edit_content(markdown, target_event_id="$" + "x" * 43, marker=MARKER)
        assert measure(markdown) >= max(content_size(live), content_size(final))
