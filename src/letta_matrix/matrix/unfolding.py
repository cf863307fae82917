"""Folded text for who sees no HTML: notifications, terminals, bridges to other networks."""

import re
from collections.abc import Iterator

from markdown_it.token import Token

from letta_matrix.matrix.formatting import clean_text, markdown_parser

_PARSER = markdown_parser(html=True)
_OPENED = re.compile(r"<details(?:\s[^<>]*)?>", re.IGNORECASE)
_CLOSED = re.compile(r"</details\s*>", re.IGNORECASE)
_SUMMED_UP = re.compile(r"</summary\s*>[ \t]*(?=\S)", re.IGNORECASE)
_TAG = re.compile(r"</?(?:details|summary)(?:\s[^<>]*)?>", re.IGNORECASE)
_STEP = "  "
_DEEPEST = 3


def unfolded(markdown: str) -> str:
    """Markdown without `<details>`: what these fold stands below their summary, indented and
    without blank lines; code among it is indented twice, without its fence."""
    text = clean_text(markdown)
    if not _OPENED.search(text):
        return text
    lines = text.split("\n")
    shown, depth = "", 0
    for token in _PARSER.parse(text):
        if token.level or token.nesting < 0 or token.map is None:
            continue
        written = lines[token.map[0] : token.map[1]]
        before, depth = depth, _depth_after(token, depth)
        block = "\n".join(_indented(token, written, before))
        if block:
            gap = "\n" if before else "\n\n"
            shown += gap + block if shown else block
    return shown


def _depth_after(token: Token, depth: int) -> int:
    """In how many folds one is after a block."""
    if token.type != "html_block":
        return depth
    opened, closed = len(_OPENED.findall(token.content)), len(_CLOSED.findall(token.content))
    return max(depth + opened - closed, 0)


def _indented(token: Token, written: list[str], depth: int) -> Iterator[str]:
    """A block's lines as they stand in so many folds."""
    indent = _STEP * min(depth, _DEEPEST)
    if token.type == "html_block":
        told = _TAG.sub("", _SUMMED_UP.sub("\n" + _STEP, "\n".join(written)))
        yield from (f"{indent}{line}" for line in told.split("\n") if line.strip())
    elif depth and token.type == "fence":
        code = token.content.removesuffix("\n").split("\n")
        yield from (f"{indent}{_STEP}{line}" for line in code)
    else:
        yield from (f"{indent}{line}" for line in written if line.strip() or not depth)
