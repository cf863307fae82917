"""The code that the documentation shows, block by block."""

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md")])

FENCE = re.compile(
    r"^(?P<indent>[ >]{0,4})(?P<fence>`{3,})(?P<language>[^`\n]*)\n"
    r"(?P<text>.*?)^[ >]{0,4}(?P=fence) *$",
    re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True)
class Block:
    """A block of code; `line` is where it begins."""

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(page: Path) -> Iterator[Block]:
    """Those of a page."""
    text = page.read_text(encoding="utf-8")
    name = page.relative_to(ROOT).as_posix()
    for found in FENCE.finditer(text):
        line = text.count("\n", 0, found.start()) + 1
        code = re.sub(r"^> ?", "", found["text"], flags=re.MULTILINE)
        yield Block(name, line, found["language"].strip(), textwrap.dedent(code))


def every_block() -> list[Block]:
    """Those of all pages."""
    return [block for page in PAGES for block in blocks(page)]
