"""What agents write beyond CommonMark: spoilers, formulas, task lists."""

import re
from collections.abc import Callable, Sequence

from markdown_it import MarkdownIt
from markdown_it.common.utils import escapeHtml
from markdown_it.rules_block import StateBlock
from markdown_it.rules_core import StateCore
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token

from letta_matrix.matrix.cjk_emphasis import is_cjk

_INLINE_FORMULA = re.compile(
    r"\$\$(?P<display>[^$]+)\$\$"
    r"|\\\[(?P<bracket>.{1,2000}?)\\\]"
    r"|\\\((?P<paren>.{1,2000}?)\\\)"
    r"|\$(?P<dollar>(?![\s$])[^$\n]*[^\s$\\])\$(?![_$])",
    re.DOTALL,
)
_FORMULA_SIGNS = re.compile(r"[\\^_={}+*/<>]")
_BLOCK_CLOSERS = {"$$": "$$", "\\[": "\\]"}
_MAX_FORMULA_LINES = 100
_TASK = re.compile(r"\[([ xX])\](?=\s)")


def add_rules(md: MarkdownIt) -> None:
    """Teach `md` spoilers `||..||`, formulas (`$..$`, `$$..$$`, `\\(..\\)`, `\\[..\\]`) and tasks.

    Formulas become `data-mx-maths` with the source as written for fallback (spec: Mathematical
    messages); sums of money stay text.
    """
    md.inline.ruler.before("escape", "formula", _inline_formula)
    md.inline.ruler.before("escape", "spoiler", _spoiler)
    md.inline.add_terminator_char("|")
    md.block.ruler.before(
        "fence", "formula", _block_formula, {"alt": ["paragraph", "blockquote", "list"]}
    )
    md.core.ruler.after("inline", "tasks", _tasks)
    write_as(md, "formula", _formula)
    write_as(md, "formula_block", _formula)


def write_as(md: MarkdownIt, kind: str, write: Callable[[Token], str]) -> None:
    """Let `md` write the tokens of a kind as `write` says."""

    def rule(_renderer: object, tokens: Sequence[Token], index: int, *_options: object) -> str:
        return write(tokens[index])

    md.add_render_rule(kind, rule)


def _inline_formula(state: StateInline, silent: bool) -> bool:
    match = _INLINE_FORMULA.match(state.src, state.pos, state.posMax)
    if match is None or not _is_formula(state, match):
        return False
    if not silent:
        token = state.push("formula", "span", 0)
        token.content = match[match.lastgroup or 0].strip()
        token.markup = match[0]
    state.pos = match.end()
    return True


def _is_formula(state: StateInline, match: re.Match[str]) -> bool:
    if match.lastgroup != "dollar":
        return True
    before, after = _neighbours(state, state.pos, match.end())
    if before in ("$", "_") or _is_word(before) or _is_word(after):
        return False
    content = match["dollar"]
    return " " not in content or bool(_FORMULA_SIGNS.search(content))


def _spoiler(state: StateInline, silent: bool) -> bool:
    start, end = state.pos + 2, state.posMax
    if not state.src.startswith("||", state.pos):
        return False
    close = state.src.find("||", start + 1, end)
    content = state.src[start:close]
    if close < 0 or content != content.strip():
        return False
    if any(map(_is_word, _neighbours(state, state.pos, close + 2))):
        return False
    if not silent:
        state.push("spoiler_open", "span", 1).attrs = {"data-mx-spoiler": ""}
        state.pos, state.posMax = start, close
        state.md.inline.tokenize(state)
        state.push("spoiler_close", "span", -1)
    state.pos, state.posMax = close + 2, end
    return True


def _neighbours(state: StateInline, start: int, end: int) -> tuple[str, str]:
    """The characters before and after a part of the text, "" where there is none."""
    return state.src[start - 1 : start], state.src[end : end + 1]


def _is_word(character: str) -> bool:
    """Whether it makes one word with what stands beside it; "" does not."""
    return character.isalnum() and not is_cjk(character)


def _block_formula(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    opener = state.src[state.bMarks[start] + state.tShift[start] :][:2]
    closer = _BLOCK_CLOSERS.get(opener)
    if closer is None or state.sCount[start] - state.blkIndent >= 4:
        return False
    for line in range(start, min(end, start + _MAX_FORMULA_LINES)):
        text = state.src[state.bMarks[line] + state.tShift[line] : state.eMarks[line]].rstrip()
        if not text.strip():
            return False
        if text.endswith(closer) and (line > start or len(text) > 4):
            break
    else:
        return False
    source = state.getLines(start, line + 1, state.sCount[start], False).strip()
    if closer in source[2:-2]:
        return False
    if not silent:
        token = state.push("formula_block", "div", 0)
        token.content, token.markup = source[2:-2].strip(), source
        token.map = [start, line + 1]
    state.line = line + 1
    return True


def _tasks(state: StateCore) -> None:
    for before, inline in zip(state.tokens[1:], state.tokens[2:], strict=False):
        children = inline.children
        if inline.type != "inline" or before.type != "paragraph_open" or not children:
            continue
        if before.level and (match := _TASK.match(children[0].content)):
            box = "☐" if match[1] == " " else "☑"
            children[0].content = box + children[0].content[match.end() :]


def _formula(token: Token) -> str:
    latex, written = escapeHtml(token.content), escapeHtml(token.markup)
    if token.type == "formula_block":
        return f'<div data-mx-maths="{latex}"><pre><code>{written}</code></pre></div>\n'
    return f'<span data-mx-maths="{latex}"><code>{written}</code></span>'
