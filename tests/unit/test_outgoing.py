"""What goes out to other networks: words without marks, in as many messages as it takes."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.portal_kit import settings

from letta_matrix.config import PortalSettings
from letta_matrix.portals.outgoing import MAX_MESSAGES, outgoing, segments
from letta_matrix.portals.plain_text import plain

SMS = PortalSettings.model_validate(settings(sms=True))
CHAT = PortalSettings.model_validate(settings(part_bytes=200))


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 1),
        ("a" * 160, 1),
        ("a" * 161, 2),
        ("a" * 306, 2),
        ("a" * 307, 3),
        ("€" * 80, 1),
        ("€" * 81, 2),
        ("ж" * 70, 1),
        ("ж" * 71, 2),
        ("مرحبا", 1),
        ("\U0001f600" * 35, 1),
        ("\U0001f600" * 36, 2),
    ],
)
def test_segments_are_counted_as_phones_do(text: str, count: int) -> None:
    assert segments(text) == count


@pytest.mark.parametrize(
    ("markdown", "words"),
    [
        ("**Bold** and *soft* `code`", "Bold and soft code"),
        ("# Title\n\nText", "Title\n\nText"),
        ("[here](https://example.org/a_b)", "here (https://example.org/a_b)"),
        ("<https://example.org/x>", "https://example.org/x"),
        ("- one\n- two\n  - three", "- one\n- two\n  - three"),
        ("3. three\n4. four", "3. three\n4. four"),
        ("```python\nx = '*'\n```", "x = '*'"),
        ("| a | b |\n|---|---|\n| 1 | 2 |", "a | b\n1 | 2"),
        ("<details><summary>Why</summary>\n\nSo\n\n</details>", "Why\nSo"),
        ("2 * 3 * 4 = 24", "2 * 3 * 4 = 24"),
        ("مرحبا **بك** 😀", "مرحبا بك 😀"),
    ],
)
def test_markdown_loses_its_marks_and_no_words(markdown: str, words: str) -> None:
    assert plain(markdown) == words


def test_a_long_reply_is_a_few_numbered_text_messages() -> None:
    reply = " ".join(f"word{number}" for number in range(250))
    assert 1_850 < len(reply) < 2_200
    sent = outgoing(reply, SMS)
    assert all(segments(one) <= 3 for one in sent)
    assert [one[:6] for one in sent] == [f"({number}/5) " for number in range(1, 6)]
    assert " ".join(one[6:] for one in sent) == reply


def test_links_stay_whole() -> None:
    link = "https://example.org/" + "x" * 300
    sent = outgoing(" ".join(["word"] * 80 + [link] + ["word"] * 80), SMS)
    assert sum(link in one for one in sent) == 1
    longer = "https://example.org/" + "x" * 900
    assert any(longer in one for one in outgoing(f"{'word ' * 100}{longer}", SMS))


def test_emoji_and_arabic_are_cut_between_what_people_see() -> None:
    family = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
    for one in outgoing(family * 60, SMS):
        shown = one.split(") ", 1)[1]
        assert shown == family * (len(shown) // len(family))
    arabic = outgoing("مرحبا بالعالم " * 60, SMS)
    assert all(segments(one) <= 3 for one in arabic)


@pytest.mark.parametrize(
    "text", ["!gm logout", "  !portal", "ircbot: quit", "@ircbot msg", "/msg x"]
)
def test_nothing_that_goes_out_is_a_command_to_the_bridge(text: str) -> None:
    (sent,) = outgoing(text, SMS)
    assert sent == f"> {text.strip()}"


def test_what_would_never_end_is_cut_and_says_so() -> None:
    sent = outgoing("word " * 40_000, CHAT)
    assert len(sent) == MAX_MESSAGES
    assert sent[-1] == "… (cut)"


@given(st.text(string.ascii_letters + " \n.*_`#!€жم\u0301😀", max_size=600))
def test_every_message_fits_and_no_letter_is_lost(text: str) -> None:
    for chosen in (SMS, CHAT):
        sent = outgoing(text, chosen)
        assert all(one.strip() for one in sent)
        if chosen.sms:
            assert all(segments(one) <= 3 for one in sent)
        else:
            assert all(len(one.encode()) <= 200 for one in sent)
        if len(sent) < MAX_MESSAGES:
            letters = "".join(one for one in "".join(sent) if one.isalpha())
            assert letters == "".join(one for one in plain(text) if one.isalpha())
