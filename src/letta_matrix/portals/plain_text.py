"""Markdown as text without marks, for networks that show none."""

from collections.abc import Iterator, Sequence
from functools import lru_cache

from markdown_it import MarkdownIt
from markdown_it.token import Token

from letta_matrix.matrix.formatting import clean_text
from letta_matrix.matrix.unfolding import unfolded

_INDENT = "  "
_UNSEEN = ("data:", "mxc:")
"""How addresses begin that lead nowhere outside of Matrix."""


@lru_cache(maxsize=1)
def _parser() -> MarkdownIt:
    return MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])


def plain(markdown: str) -> str:
    """The words of a Markdown text: links with where they lead, lists with a dash or their
    numbers, tables as lines, code as it stands."""
    tokens = _parser().parse(clean_text(unfolded(markdown)))
    return "\n".join(_joined(_lines(tokens))).strip()


def _joined(lines: Iterator[str]) -> list[str]:
    """Lines with no more than one blank one in a row."""
    kept: list[str] = []
    for line in lines:
        if line.strip() or (kept and kept[-1].strip()):
            kept.append(line.rstrip())
    return kept


def _lines(tokens: Sequence[Token]) -> Iterator[str]:
    lists: list[int | None] = []
    mark, cells, is_in_table = "", list[str](), False
    for token in tokens:
        indent = _INDENT * max(len(lists) - 1, 0)
        match token.type:
            case "bullet_list_open":
                lists.append(None)
            case "ordered_list_open":
                lists.append(int(token.attrGet("start") or 1))
            case "bullet_list_close" | "ordered_list_close":
                lists.pop()
                if not lists:
                    yield ""
            case "list_item_open":
                number = lists[-1]
                mark = "- " if number is None else f"{number}. "
                lists[-1] = None if number is None else number + 1
            case "tr_open":
                cells, is_in_table = [], True
            case "tr_close":
                yield " | ".join(cells)
                is_in_table = False
            case "inline" if is_in_table:
                cells.append(_words(token))
            case "inline":
                hang = " " * len(mark) if mark else (_INDENT if lists else "")
                for place, line in enumerate(_words(token).split("\n")):
                    yield indent + (mark if not place else hang) + line
                mark = ""
            case "fence" | "code_block":
                yield from (indent + mark + line for line in token.content.rstrip().split("\n"))
                yield ""
                mark = ""
            case "paragraph_close" | "heading_close" if not lists:
                yield ""
            case "table_close" | "blockquote_close":
                yield ""
            case _:
                pass


def _words(inline: Token) -> str:
    """The words of a line, with the addresses of its links unless these are what it shows."""
    text, targets = "", list[tuple[str, int]]()
    for token in inline.children or []:
        match token.type:
            case "text" | "code_inline":
                text += token.content
            case "softbreak" | "hardbreak":
                text += "\n"
            case "link_open":
                targets.append((str(token.attrGet("href") or ""), len(text)))
            case "link_close" if targets:
                target, start = targets.pop()
                shown = text[start:]
                is_shown = target.removeprefix("mailto:") == shown
                text += "" if is_shown or not target else f" ({target})"
            case "image":
                text += _picture(str(token.attrGet("src") or ""), token.content)
            case _:
                text += token.content
    return text


def _picture(source: str, words: str) -> str:
    """A picture in a text, by its words and where it is, if that can be opened on a phone."""
    if source.lower().startswith(_UNSEEN):
        return words or "(a picture)"
    return f"{words} ({source})" if words else source
