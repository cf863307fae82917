"""Splitting: every part fits, nothing is lost, and growth leaves finished parts alone."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from letta_matrix.matrix.content import edit_measure
from letta_matrix.matrix.splitting import CONTENT_LIMIT, estimate, split

MEASURE = edit_measure({"agent_id": "agent-1", "turn_id": "t"})
LIMIT = 2_400


def test_short_text_is_one_unchanged_part() -> None:
    assert split("hello\n\n**world** \n") == ["hello\n\n**world** \n"]
    assert split("", LIMIT, MEASURE) == [""]


@pytest.mark.parametrize("columns", [1, 8, 30, 50])
def test_the_widest_short_table_fits(columns: int) -> None:
    text = "|".join("a" for _ in range(columns)) + "\n" + "|".join("-" for _ in range(columns))
    text += "\n|" * ((CONTENT_LIMIT // 240 - len(text)) // 2)
    assert split(text, measure=MEASURE) == [text]
    assert MEASURE(text) < CONTENT_LIMIT


def test_cuts_between_paragraphs() -> None:
    paragraph = "word " * 40
    parts = split("\n\n".join([paragraph] * 10), 2_000)
    assert len(parts) > 1
    assert all(part.split("\n\n")[0] == paragraph.strip() for part in parts if "\n\n" not in part)
    assert sum(part.count("word") for part in parts) == 400


def test_code_is_closed_and_opened_again_with_its_language() -> None:
    code = "\n".join(f"print({number})" for number in range(200))
    parts = split(f"Look:\n\n```python\n{code}\n```\n\nDone.", LIMIT, MEASURE)
    assert len(parts) > 2
    fenced = [part for part in parts if "print" in part]
    assert all(part.count("```python\n") == 1 for part in fenced)
    assert all(part.count("```") == 2 for part in fenced)
    assert re.findall(r"print\((\d+)\)", "".join(parts)) == [str(n) for n in range(200)]


def test_blank_lines_in_code_are_no_block_boundary() -> None:
    code = "\n\n".join(f"line{number}" for number in range(120))
    parts = split(f"~~~~\n{code}\n```\n~~~~", LIMIT, MEASURE)
    assert all(part.startswith("~~~~\n") and part.endswith("\n~~~~") for part in parts)


def test_a_table_repeats_its_header() -> None:
    rows = "\n".join(f"| {number} | x |" for number in range(200))
    parts = split(f"| n | v |\n|---|:-:|\n{rows}", LIMIT, MEASURE)
    assert len(parts) > 2
    assert all(part.startswith("| n | v |\n|---|:-:|\n| ") for part in parts)
    assert sum(part.count("| x |") for part in parts) == 200


def test_a_long_line_is_cut_between_words() -> None:
    parts = split("word " * 2_000, LIMIT, MEASURE)
    assert len(parts) > 2
    assert {word for part in parts for word in part.split()} == {"word"}


@pytest.mark.parametrize("cluster", ["日", "👩\u200d👩\u200d👧", "👍🏽", "e\u0301"])
def test_a_long_word_is_cut_between_characters(cluster: str) -> None:
    parts = split(cluster * 300, LIMIT, MEASURE)
    assert len(parts) > 1
    assert all(part == cluster * part.count(cluster) for part in parts)
    assert "".join(parts) == cluster * 300


def test_markdown_that_grows_out_of_proportion_still_fits() -> None:
    table = "|a" * 60 + "|\n" + "|-" * 60 + "|\n" + "|x\n" * 60
    parts = split(table, 12_000, MEASURE)
    assert all(MEASURE(part) <= 12_000 for part in parts)


def test_parts_use_the_room_they_have() -> None:
    prose = ("The quick brown fox jumps over the lazy dog, and it does so. " * 8 + "\n\n") * 100
    parts = split(prose, CONTENT_LIMIT, MEASURE)
    assert len(parts) <= 4
    assert all(MEASURE(part) > CONTENT_LIMIT // 2 for part in parts[:-1])


_LINES = st.sampled_from(
    [
        "",
        "",
        "```py",
        "```",
        "~~~~",
        "| a | b |",
        "|---|---|",
        "| 1 | 2 |",
        "- item with `code`",
        "1. one",
        "> quoted **text**",
        "plain words of some length that fill a line a little",
        "日本語のテキストです。" * 6,
        "x" * 700,
        "$$",
        "<details>",
        '"quotes" & <angles> \\ backslashes',
        "word " * 90,
    ]
)
_TEXT = st.lists(_LINES | st.text(max_size=30), max_size=40).map("\n".join)


def _letters(text: str) -> str:
    return "".join(re.findall(r"[xword日本語]", text))


@settings(max_examples=100, deadline=None)
@given(_TEXT)
def test_every_part_fits_and_no_letter_is_lost(text: str) -> None:
    parts = split(text, LIMIT, MEASURE)
    assert all(MEASURE(part) <= LIMIT for part in parts)
    kept = iter("".join(map(_letters, parts)))
    assert all(letter in kept for letter in _letters(text))


@settings(max_examples=100, deadline=None)
@given(_TEXT, st.data())
def test_growth_changes_only_the_last_part(text: str, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(text)))
    before, after = split(text[:cut], 1_000), split(text, 1_000)
    assert after[: len(before) - 1] == before[:-1]


def test_a_stream_never_takes_back_a_finished_part() -> None:
    text = "Intro:\n| a | b |\n|---|---|\n" + "| 1 | 2 |\n" * 30 + "\n```py\nx = 1\n\n" * 12
    text += "1. one **two**\n" * 40 + "```\nend `x` <b>b</b>\n" * 9
    finished: list[str] = []
    for end in range(0, len(text), 3):
        parts = split(text[:end], 1_200)
        assert parts[: len(finished)] == finished
        finished = parts[:-1]


@given(st.text(), st.text())
def test_estimate_never_shrinks(start: str, more: str) -> None:
    assert estimate(start + more) >= estimate(start)
