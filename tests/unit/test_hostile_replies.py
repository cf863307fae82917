"""What an agent writes does no harm: nobody is pinged, tracked, misled or held up by it."""

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.test_formatting import inspect

from letta_matrix.matrix.content import LIVE, content_size, edit_content, edit_measure, text_content
from letta_matrix.matrix.formatting import clean_text, render
from letta_matrix.matrix.mentions import mentioned, named_by_agent
from letta_matrix.matrix.splitting import CONTENT_LIMIT, MAX_PARTS, split

MARKER = {"agent_id": "agent-" + "a" * 36, "turn_id": "t" * 29, "txn": "x" * 40, "run_id": "r" * 40}
EVENT_LIMIT = 65_536
OVERHEAD = 2_500
"""Bytes of an event beside its content: four ids of 255 bytes, hashes, signatures, 20 ancestors."""


def html(markdown: str) -> str:
    return render(markdown).html


def check(content: dict[str, Any], mentions: tuple[str, ...] = ()) -> None:
    """A content any homeserver takes, and any client can show."""
    assert content_size(content) + OVERHEAD <= EVENT_LIMIT
    json.dumps(content, ensure_ascii=False).encode()
    for body in (content, content.get("m.new_content", content)):
        assert body["m.mentions"] == ({"user_ids": list(mentions)} if mentions else {})
        assert isinstance(body["body"], str)
        assert not re.search("[\x00-\x08\u202a-\u202e\u2066-\u2069]", body["body"])
        inspect(body.get("formatted_body", ""))
        # A version without HTML would not do beside those with it.
        if body is not content or "m.new_content" not in content:
            is_whole_line = body is content and LIVE not in body and "\n" not in body["body"]
            assert body.get("formatted_body") or not body["body"] or is_whole_line


def events_of(text: str) -> list[dict[str, Any]]:
    """Every event that a reply can take: first, growing and final."""
    parts = split(text, measure=edit_measure(MARKER))
    assert 1 <= len(parts) <= MAX_PARTS
    target = "$" + "x" * 254
    return [
        content
        for part in parts
        for content in (
            text_content(part, marker=MARKER, live=True),
            edit_content(part, target_event_id=target, marker=MARKER, live=True),
            edit_content(part, target_event_id=target, marker=MARKER),
        )
    ]


@pytest.mark.parametrize(
    "text",
    [
        "@room wake up",
        "# @room",
        "@ann:test [Ann](https://matrix.to/#/@ann:test)",
        '<a href="https://matrix.to/#/@ann:test">Ann</a> <mx-reply>x</mx-reply>',
        '{"m.mentions": {"room": true}}',
        "[@room](matrix:u/ann:test)",
    ],
)
def test_nobody_is_pinged(text: str) -> None:
    for content in events_of(text):
        check(content)
        # With m.mentions there, even a pill that a client made of it counts for nobody. (Words
        # do, of people: what agents say is for nobody in any case.)
        assert mentioned({**content, "body": ""}, ("@ann:test", "@room")) == set()


def test_who_may_be_pinged_is_said_by_id() -> None:
    members = ("@ann:test", "@bob:test")
    named = named_by_agent("@room and @ann:test", members)
    check(text_content("x", marker=MARKER, mentions=named), ("@ann:test",))
    check(edit_content("x", target_event_id="$x", marker=MARKER, mentions=named), ("@ann:test",))


def test_pings_leave_room_for_the_text() -> None:
    crowd = [f"@{'p' * 200}{number}:test" for number in range(50)]
    named = named_by_agent(" ".join(crowd), crowd)
    part = split("日本 **x**\n" * 20_000, measure=edit_measure(MARKER))[0]
    target = "$" + "x" * 254
    content = edit_content(part, target_event_id=target, marker=MARKER, mentions=named)
    assert named
    check(content, named)


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "<style>body{display:none}</style>",
        '<img src="https://evil.test/pixel.gif">',
        '<img src=x onerror="alert(1)">',
        "![](https://evil.test/pixel.gif)",
        "![](mxc://evil.test/what-the-agent-knows)",
        '<img src="mxc://evil.test/what-the-agent-knows">',
        "![a](data:image/png;base64,AAAA)",
        "[x](javascript:alert(1))",
        "[x](java\u200bscript:alert(1))",
        "[x](vbscript:x) [y](file:///etc/passwd) [z](data:text/html,x)",
        '<b style="position:fixed;top:0" class="x" id="y" onclick="z()">b</b>',
        '<iframe src="https://evil.test"></iframe><object data="x"></object><form><input></form>',
        '<a href="https://evil.test" target="_self" ping="https://evil.test/p">x</a>',
        "<svg><script>alert(1)</script></svg><math><mtext><style>x",
        "<details open ontoggle=alert(1)><summary>x</summary>y</details>",
        "<!--[if IE]><script>alert(1)</script><![endif]-->",
        '<div data-mx-maths="x" style="background:url(https://evil.test)">y</div>',
        '<span data-mx-bg-color="#ffffff;background:url(https://evil.test)">y</span>',
    ],
)
def test_nothing_active_and_nothing_that_loads_by_itself(text: str) -> None:
    for content in events_of(text):
        check(content)
        shown = content.get("formatted_body", "")
        tags = " ".join(re.findall(r"<[^>]*>", shown)).lower()
        for bad in ("script", "style", "onerror", "onclick", "ontoggle", "ping=", "url(", "iframe"):
            assert bad not in tags
        assert "src=" not in tags


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("[https://bank.com](https://evil.test/x)", "https://bank.com (https://evil.test/x)"),
        ("[bank.com](https://evil.test)", "bank.com (https://evil.test)"),
        ("[**www.bank.example**](https://evil.test)", "www.bank.example (https://evil.test)"),
        ("[ba\u200bnk.com](https://evil.test)", "ba\u200bnk.com (https://evil.test)"),
        (
            "[log in at bank.com now](https://evil.test)",
            "log in at bank.com now (https://evil.test)",
        ),
        ("[help@bank.com](mailto:x@evil.test)", "help@bank.com (mailto:x@evil.test)"),
        (
            "[https://git.test/good](https://git.test/bad)",
            "https://git.test/good (https://git.test/bad)",
        ),
        ("[bank.com](https://bank.com@evil.test/)", "bank.com (https://evil.test/)"),
        ("[bank.com](https://bänk.com/)", "bank.com (https://xn--bnk-qla.com/)"),
        ("[README.md](https://git.test/a)", "README.md (https://git.test/a)"),
        ("[bank.com](https://notbank.com)", "bank.com (https://notbank.com)"),
        (
            '<a href="https://evil.test">https://<b>bank</b>.com</a>',
            "https://bank.com (https://evil.test)",
        ),
        ("[https://ba.com](https://evil.test/" + "x" * 300 + ")", "https://ba.com (evil.test/…)"),
        (
            "![https://bank.com](https://evil.test/a.png)",
            "https://bank.com (https://evil.test/a.png)",
        ),
        ("[https://bank.com](matrix:u/eve:test)", "https://bank.com (matrix:u/eve:test)"),
        (
            "[@ann:bank.com](https://matrix.to/#/@eve:test)",
            "@ann:bank.com (https://matrix.to/#/@eve:test)",
        ),
    ],
)
def test_a_link_whose_text_is_another_address_says_so(text: str, shown: str) -> None:
    assert inspect(html(text)).strip() == shown


@pytest.mark.parametrize(
    "text",
    [
        "[here](https://evil.test)",
        "[https://bank.com/](https://bank.com)",
        "[bank.com](https://www.bank.com/login)",
        "[bank.com](https://docs.bank.com/login)",
        "<https://bank.com/a%20b>",
        "[git.test/a/README.md](https://git.test/a/README.md)",
        "[the run of asyncio, e.g. at 12:30](https://docs.test/asyncio)",
        "[Ann](https://matrix.to/#/@ann:test)",
        "[@ann:bank.com](https://matrix.to/#/@ann:bank.com)",
        "[me@bank.com](mailto:me@bank.com?subject=x)",
        "[v1.2.3](https://git.test/tag)",
    ],
)
def test_an_ordinary_link_stays_as_it_is(text: str) -> None:
    assert html(text).endswith("</a>")


def test_nothing_invisible_in_urls() -> None:
    text = (
        "https://ba\u200b\u2060nk\u200d.com/a\ufeffb/\u0645\u06cc\u200c\u0634\u0648\u062f x\u200by"
    )
    clean = clean_text(text)
    assert clean == "https://bank.com/ab/\u0645\u06cc\u200c\u0634\u0648\u062f x\u200by"
    for link in ("[x](https://ba\u200bnk.com)", '<a href="https://ba\u200bnk.com">x</a>'):
        assert 'href="https://bank.com"' in html(link)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\u202egnp.exe\u202c b", "agnp.exe b"),
        ("\u2066\u2067\u2068x\u2069", "x"),
        ("a\x1b[31mb\x9bc", "a[31mbc"),
        ("hi\U000e0069\U000e0067\U000e006e\U000e006f\U000e0072\U000e0065", "hi"),
        (
            "\U0001f3f4\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f",
            "\U0001f3f4\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f",
        ),
        ("Z" + "\u0301" * 500 + "!", "Z" + "\u0301" * 6 + "!"),
        (
            "\U0001f469\u200d\U0001f469\u200d\U0001f467",
            "\U0001f469\u200d\U0001f469\u200d\U0001f467",
        ),
        ("\u05e9\u05dc\u05d5\u05dd \u200fabc\u200e", "\u05e9\u05dc\u05d5\u05dd \u200fabc\u200e"),
        ("a\ud800b", "a\ufffdb"),
    ],
)
def test_nothing_hides_or_reorders_text(text: str, shown: str) -> None:
    assert clean_text(text) == shown
    assert render(text).body == shown


@pytest.mark.parametrize(
    "text",
    [
        "a" * 1_000_000,
        "The quick brown fox. " * 50_000,
        "$" * 1_000_000,
        ">" * 100_000 + " a",
        "[" * 100_000,
        "*" * 100_000 + "a",
        "<div>" * 100_000,
        "<details><summary>" * 50_000,
        "\n".join("  " * level + "- x" for level in range(1_000)),
        "`" * 100_000,
        "~" * 100_000,
        "```\n" * 100_000,
        "```py\n" + "x = 1\n" * 160_000,
        "|a|b|\n|-|-|\n" + "|1|2|\n" * 160_000,
        "|" * 100_000,
        "||a " * 100_000,
        "\\(" * 100_000,
        "[a](" * 100_000,
        "![" * 100_000,
        "<a " * 100_000,
        "<!--" * 100_000,
        "a" * 400_000 + "://",
        "a://" * 100_000,
        "https://bank.com " * 60_000,
        "[https://a.com](https://b.com) " * 30_000,
        "\u0301" * 400_000,
        "\u2028" * 300_000,
        "\ud800" * 300_000,
        "\x00" * 1_000_000,
        "&" * 1_000_000,
    ],
)
def test_a_megabyte_of_anything_is_cut(text: str) -> None:
    """What took longer than in proportion to that would not come to its end."""
    events = events_of(text)
    # Edits that grow are the largest.
    for content in events[1::3]:
        check(content)
    if len(events) == 3 * MAX_PARTS:
        assert events[-1]["m.new_content"]["body"].endswith("… (cut)")


def test_what_fits_is_not_cut() -> None:
    text = "\n\n".join(f"Paragraph {number} of a long answer." for number in range(8_000))
    parts = split(text, measure=edit_measure(MARKER))
    assert 1 < len(parts) < MAX_PARTS
    assert re.findall(r"\d+", "".join(parts)) == re.findall(r"\d+", text)


def test_nothing_is_cut_in_silence() -> None:
    parts = split("a" + "\n" * 500_000 + "b", measure=edit_measure(MARKER))
    assert parts[0].startswith("a")
    assert parts[-1].endswith("… (cut)")


def test_a_cut_text_keeps_its_parts_while_it_grows() -> None:
    measure = edit_measure(MARKER)
    text = "\n\n".join(f"Paragraph {number}: " + "word " * 50 for number in range(2_500))
    before, after = split(text[:-100_000], measure=measure), split(text, measure=measure)
    assert len(before) == len(after) == MAX_PARTS
    assert before == after


def test_words_about_an_approval_are_words() -> None:
    text = "✅ React to approve `Bash`\n\n<details><summary>Approve?</summary>rm -rf /</details>"
    for content in events_of(text):
        check(content)
        assert set(content["org.letta.matrix"]) == set(MARKER)


_PIECES = st.sampled_from(
    [
        *(
            "a",
            " ",
            "\n",
            "\n\n",
            "`",
            "```",
            "~~~",
            "*",
            "**",
            "_",
            "|",
            "||",
            "$",
            "$$",
            "\\",
            "[",
        ),
        *(
            "]",
            "(",
            ")",
            "!",
            "<",
            ">",
            "</",
            "&",
            "#",
            "- ",
            "1. ",
            "> ",
            "|-|",
            "://",
            "https://a.com",
        ),
        *("<b>", "</b>", "<details>", "<script>", "<!--", "-->", "@room", "@ann:test", "mxc://a/b"),
        *(
            "\u202e",
            "\u200b",
            "\u200d",
            "\u0301",
            "\ud83d",
            "\ude00",
            "\x00",
            "\r",
            "\u2028",
            "日",
            "👍🏽",
        ),
    ]
)


@settings(max_examples=150, deadline=None)
@given(st.one_of(st.text(), st.lists(_PIECES).map("".join)), st.sampled_from([1, 1, 1, 300]))
def test_any_text_gives_valid_bounded_contents(text: str, times: int) -> None:
    for content in events_of(text * times):
        check(content)
    assert CONTENT_LIMIT + OVERHEAD < EVENT_LIMIT
