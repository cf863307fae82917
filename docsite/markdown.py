"""Markdown that reads the same on the site and where the files are looked at."""

import html
from collections.abc import Iterable, Sequence

NOTE = "<!-- Made of the code by `make docs`: what is changed here is lost. -->"


def page(title: str, *parts: str) -> str:
    """A page that is made of the code."""
    return "\n\n".join((f"# {title}", NOTE, *parts)) + "\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; a line break in a cell becomes a blank."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def code(text: str) -> str:
    """A text as code, in a table too: there a bar in backticks ends the cell for some readers and
    keeps its backslash for others."""
    return (
        f"<code>{html.escape(text).replace('|', '&#124;')}</code>" if "|" in text else f"`{text}`"
    )


def sentence(text: str) -> str:
    """The text with a capital letter and an end."""
    text = " ".join(text.split())
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "?", ":")) else ".")


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
