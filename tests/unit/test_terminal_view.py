"""What an agent says in a terminal: who speaks, Markdown, lines that end between words."""

import io
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rich.console import Console

from letta_matrix.cli.terminal_view import TerminalMarkdown, TerminalView, last_block
from letta_matrix.cli.transcript import Update

_PIECE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\r|\n|[^\x1b\r\n]+")


class Terminal:
    """A terminal of some width; `lines` are what stands in it, without colours."""

    def __init__(self, width: int = 40) -> None:
        self._file = io.StringIO()
        self.console = Console(
            file=self._file, width=width, height=20, force_terminal=True, color_system="truecolor"
        )
        self.view = TerminalView("Ada", self.console)

    @property
    def raw(self) -> str:
        return self._file.getvalue()

    @property
    def lines(self) -> list[str]:
        lines, row, column = [""], 0, 0
        for piece in _PIECE.findall(self.raw):
            if piece == "\n":
                row, column = row + 1, 0
                lines += [""] * (row + 1 - len(lines))
            elif piece == "\r":
                column = 0
            elif piece.endswith("A") and piece.startswith("\x1b"):
                row -= int(piece[2:-1] or 1)
            elif piece == "\x1b[2K":
                lines[row] = ""
            elif not piece.startswith("\x1b"):
                rest = lines[row][column + len(piece) :]
                lines[row] = lines[row][:column].ljust(column) + piece + rest
                column += len(piece)
        return [line.rstrip() for line in lines]


def rendered(markdown: str, width: int = 60) -> str:
    terminal = Terminal(width)
    terminal.console.print(TerminalMarkdown(markdown))
    return "\n".join(terminal.lines)


def test_who_speaks_what_is_bold_and_where_lines_end() -> None:
    terminal = Terminal()
    text = "It is **important** that lines end between words, all of them."
    terminal.view.show(Update("$1", text))
    assert terminal.lines[:3] == [
        "Ada",
        "It is important that lines end between",
        "words, all of them.",
    ]
    assert "\x1b[1mimportant\x1b[0m" in terminal.raw


def test_blocks_are_printed_once_when_they_are_whole() -> None:
    terminal = Terminal()
    text = "First paragraph.\n\n- one\n- two\n\nLast."
    for end in (3, 10, 20, 27, 33, len(text)):
        terminal.view.show(Update("$1", text[:end], live=True))
    terminal.view.show(Update("$1", text))
    terminal.view.settle()
    assert terminal.lines == ["Ada", "First paragraph.", "", " • one", " • two", "", "Last.", ""]


def test_what_grows_is_taller_than_the_terminal() -> None:
    terminal = Terminal()
    code = "```\n" + "\n".join(f"line {number}" for number in range(100))
    terminal.view.show(Update("$1", code, live=True))
    shown = [line.strip() for line in terminal.lines]
    assert "line 99" in shown
    assert len(shown) <= 20
    terminal.view.show(Update("$1", f"{code}\n```"))
    shown = [line.strip() for line in terminal.lines]
    assert [line for line in shown if line] == ["Ada", *(f"line {n}" for n in range(100))]


def test_a_message_that_was_interrupted_goes_on_below() -> None:
    terminal = Terminal()
    terminal.view.show(Update("$1", "I begin", live=True))
    terminal.view.show(Update("$2", "May I?"))
    terminal.view.show(Update("$1", "I begin and end."))
    whole = " ".join(" ".join(terminal.lines).split())
    assert whole.endswith("May I? and end.")


def test_an_open_fence_leaves_no_blank_lines_and_may_be_interrupted() -> None:
    terminal = Terminal()
    terminal.view.show(Update("$1", "```", live=True))
    terminal.view.show(Update("$2", "A note."))
    terminal.view.show(Update("$1", "```\none", live=True))
    terminal.view.show(Update("$3", "Another."))
    terminal.view.show(Update("$1", "```\none\n# two\n```\n\nDone."))
    assert terminal.lines[:-1] == [
        *("Ada", "A note.", "", " one", "", "Another.", "", " # two", "", "Done."),
    ]


def test_a_rewritten_message_is_shown_again() -> None:
    terminal = Terminal()
    terminal.view.show(Update("$1", "Wrong."))
    terminal.view.show(Update("$1", "Right."))
    assert [line for line in terminal.lines if line] == ["Ada", "Wrong.", "Right."]


@pytest.mark.parametrize(
    ("markdown", "shown"),
    [
        ("a\nb", "a\nb"),
        ("List<String> &amp; <kbd>x</kbd>", "List<String> & <kbd>x</kbd>"),
        ("<details><summary>S</summary>", "<details><summary>S</summary>"),
        ("$a_1 * b_1$ is x", "$a_1 * b_1$ is x"),
        ("||secret|| word", "||secret|| word"),
        ("[bank](https://evil.test)", "bank (https://evil.test)"),
        ("<https://a.test>", "https://a.test"),
        ("![a cat](https://a.test/c.png)", "a cat (https://a.test/c.png)"),
        ("これは**「重要」**です", "これは「重要」です"),
        ("- [ ] a\n- [x] b", " • ☐ a\n • ☑ b"),
    ],
)
def test_nothing_is_lost(markdown: str, shown: str) -> None:
    assert rendered(markdown).strip("\n") == shown


# Cells beyond a table's columns and words behind a fence are lost in HTML too.
_MARKDOWN = (
    st.lists(
        st.sampled_from(
            "a b ** * ` \n \n\n # > - 1. $x$ || <b> [a](https://b.c) ![ ~~ ]( 日「".split(" ")  # noqa: SIM905
        )
    )
    .map("".join)
    .filter(lambda text: "```" not in text and "~~~" not in text)
)
_GROWING = st.lists(st.sampled_from(["a", "日", "\n", "\n\n", "```", "|", "|-|", "# ", "> ", "- "]))


@settings(max_examples=100, deadline=None)
@given(_MARKDOWN)
def test_any_text_is_drawn_and_no_letter_lost(markdown: str) -> None:
    assert rendered(markdown).count("日") == markdown.count("日")


@settings(max_examples=100, deadline=None)
@example("a\n```", "a```")
@given(_GROWING.map("".join), _GROWING.map("".join))
def test_what_is_before_the_last_block_stays_so(text: str, more: str) -> None:
    assert 0 <= last_block(text) <= last_block(text + more) <= len(text + more)
