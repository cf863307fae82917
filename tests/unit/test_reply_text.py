"""A reply as it streams: paragraphs, and nothing of the envelope."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from letta_matrix.config import DEFAULT_ENVELOPE
from letta_matrix.conversations.reply_text import MAX_REPLY, ReplyText
from letta_matrix.runtimes.protocol import TextDelta

ENVELOPE = "[Matrix, Kitchen, 2026-11-22 19:40 UTC] Ann (@ann:test):"
HEADER = f"{ENVELOPE}\n> you: what is for dinner\n> tonight?\n\n"


def said(header: str, *deltas: str) -> tuple[list[str], str]:
    text = ReplyText(header)
    return [text.add(TextDelta("a", delta)) for delta in deltas], text.end()


def test_assistant_messages_are_paragraphs_in_their_order() -> None:
    text = ReplyText()
    text.add(TextDelta("a", "one\n"))
    text.add(TextDelta("b", "\ntwo"))
    assert text.add(TextDelta("a", "more")) == "one\nmore\n\ntwo"
    assert text.add(TextDelta("c", "\n")) == text.end() == "one\nmore\n\ntwo"


def test_without_a_header_everything_is_shown_at_once() -> None:
    assert said("", "[Matr", "ix") == (["[Matr", "[Matrix"], "[Matrix")


@pytest.mark.parametrize("header", [f"{ENVELOPE}\n", HEADER])
@pytest.mark.parametrize("size", [1, 3, 7, 1000])
def test_an_echoed_header_is_never_seen(header: str, size: int) -> None:
    answer = f"echo: {header}hello"
    deltas = [answer[start : start + size] for start in range(0, len(answer), size)]
    shown, end = said(header, *deltas)
    assert end == "echo: hello"
    assert all("echo: hello".startswith(text) for text in shown)


def test_the_envelope_alone_goes_too() -> None:
    assert said(HEADER, f"{ENVELOPE} I am here")[1] == "I am here"
    assert said(HEADER, ENVELOPE)[1] == ""
    assert said(HEADER, f"{ENVELOPE}\n> you: what else")[1] == "> you: what else"


def test_a_header_goes_wherever_it_is_repeated() -> None:
    assert said(HEADER, f"{HEADER}one\n{HEADER}two")[1] == "one\ntwo"


def test_what_only_looks_like_the_header_comes_back() -> None:
    shown, end = said(f"{ENVELOPE}\n", "see [Matr", "oska]", " [Matrix, Kit")
    assert shown == ["see ", "see [Matroska]", "see [Matroska] "]
    assert end == "see [Matroska] [Matrix, Kit"


def test_a_quote_without_an_envelope() -> None:
    header = "> you: yes\n> no\n\n"
    assert said(header, "> you: ye", "s\n> no\n\nmaybe")[1] == "maybe"
    assert said(header, "> you: yes\nthat was it")[1] == "> you: yes\nthat was it"


@pytest.mark.parametrize("size", [1, 4, 1000])
@pytest.mark.parametrize(
    ("answer", "left"),
    [
        ("[Matrix, Kitchen, 2026-11-22 19:41 UTC] Ada (@agent_1:test):\nhello", "hello"),
        ("\n[Matrix, a, b, c] Ada (@a:b), in a thread: hello", "hello"),
        (f"{HEADER}hello", "hello"),
        (f"{ENVELOPE}\nhello", "hello"),
        ("[Matrix, maybe]\nhello", "[Matrix, maybe]\nhello"),
        ("[Matrix, maybe] hello", "[Matrix, maybe] hello"),
        ("[Matrix](https://matrix.org) hello", "[Matrix](https://matrix.org) hello"),
        ("see [Matrix, a, b] Ada (@a:b): x", "see [Matrix, a, b] Ada (@a:b): x"),
        ("hello", "hello"),
    ],
)
def test_an_envelope_of_the_models_own_making(answer: str, left: str, size: int) -> None:
    text = ReplyText(HEADER, DEFAULT_ENVELOPE)
    deltas = [answer[start : start + size] for start in range(0, len(answer), size)]
    shown = [text.add(TextDelta("a", delta)) for delta in deltas]
    assert text.end() == left
    assert all(left.startswith(part) for part in shown)


@pytest.mark.parametrize("envelope", [f"{ENVELOPE}\n", ""])
@pytest.mark.parametrize("size", [1, 50, 100_000])
def test_a_long_context_that_is_repeated_goes_too(envelope: str, size: int) -> None:
    lines = "".join(f"> Bob: {number} {'> ' * 30}\n" for number in range(100))
    header = f"{envelope}> [Context]\n{lines}\n"
    answer = f"echo: {header}hello\n{lines}"
    deltas = [answer[start : start + size] for start in range(0, len(answer), size)]
    shown, end = said(header, *deltas)
    assert end == f"echo: hello\n{lines}".rstrip("\n")
    assert all(end.startswith(text) for text in shown)


def test_nothing_is_taken_away_where_there_was_no_envelope() -> None:
    answer = "[Matrix, a, b] Ada (@a:b): x"
    text = ReplyText("", DEFAULT_ENVELOPE)
    assert text.add(TextDelta("a", answer)) == answer


@pytest.mark.parametrize("template", ["{name}: ", "[{time}] {name}", "", "{{{name}}}"])
def test_an_envelope_without_a_clear_shape_is_known_word_for_word(template: str) -> None:
    text = ReplyText("Ann: ", template)
    text.add(TextDelta("a", "Ada: x Ann: y"))
    assert text.end() == "Ada: x y"


@pytest.mark.parametrize("piece", ["[Matrix, , , ] (, ", ", "])
def test_a_hostile_opening_is_read_to_its_end(piece: str) -> None:
    """Each piece makes what has come so far match in more ways."""
    text, answer = ReplyText(HEADER, DEFAULT_ENVELOPE), "[Matrix" + piece * 20_000
    for start in range(0, len(answer), len(piece)):
        text.add(TextDelta("a", answer[start : start + len(piece)]))
    assert text.end() == answer


def test_it_ends_somewhere() -> None:
    text = ReplyText("x: ")
    for _ in range(12):
        text.add(TextDelta("a", "y" * 100_000))
    assert len(text.end()) == MAX_REPLY


@given(st.text(alphabet="[M] a\n>:", max_size=12), st.lists(st.text(alphabet="[M] a\n>:")))
def test_what_is_shown_never_shrinks(header: str, deltas: list[str]) -> None:
    text = ReplyText(header, "[M{name}]:")
    shown = [text.add(TextDelta("a", delta)) for delta in deltas]
    end = text.end()
    for before, after in pairwise([*shown, end]):
        assert after.rstrip("\n").startswith(before.rstrip("\n"))
