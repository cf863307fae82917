"""Notices say what happened in one line, and what a person can do."""

from collections.abc import Callable

import pytest

from letta_matrix.conversations import notices


@pytest.mark.parametrize("notice", [notices.refused, notices.credentials, notices.not_shown])
def test_reasons_are_one_sentence(notice: Callable[[str], str]) -> None:
    assert notice("the model is gone").endswith(": the model is gone.")
    assert notice("it is.  gone...\n\n now.").endswith(": it is. gone... now.")
    assert notice("").endswith(": no reason was given.")
    assert notice(" \n").endswith(": no reason was given.")
    assert len(notice("x" * 100_000)) < 400


def test_a_failure_says_why_and_how_to_ask_again() -> None:
    assert notices.failed("the model is gone").startswith("I could not finish: the model is gone. ")
    assert "🔁" in notices.failed("")


def test_a_lost_turn_says_how_to_ask_again() -> None:
    text = notices.lost("the App Server restarted.", tools_started=True)
    assert "(the App Server restarted)" in text
    assert "🔁" in text
    assert "A tool may have run" in text
    assert "tool" not in notices.lost("gone", tools_started=False)


@pytest.mark.parametrize(
    ("text", "figure"),
    [
        (notices.expired(24.0), "24 hours"),
        (notices.expired(0.5), "0.5 hours"),
        (notices.silent(5.0), "5 minutes"),
        (notices.too_long(60.0), "60 minutes"),
    ],
)
def test_figures_read_as_people_write_them(text: str, figure: str) -> None:
    assert figure in text


def test_each_trouble_has_words_of_its_own() -> None:
    words = [
        notices.UNREADABLE,
        notices.NO_WORDS,
        notices.STOPPED,
        notices.BROKEN,
        notices.UNAVAILABLE,
        notices.BUSY,
        notices.RATE_LIMITED,
        notices.GONE,
        notices.expired(1),
        notices.failed("x"),
        notices.refused("x"),
        notices.credentials("x"),
        notices.not_shown("x"),
        notices.silent(1),
        notices.too_long(1),
    ]
    assert len(set(words)) == len(words)
    assert all("\n" not in text and len(text) < 200 for text in words)
