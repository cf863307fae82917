"""Emphasis beside Chinese, Japanese and Korean characters.

These languages put no spaces between words. So CommonMark, which judges `**` by the characters on
both sides of it, takes none where punctuation stands inside and a letter outside, as in
`これは**「重要」**です`. Here it is judged as the CJK-friendly amendments do
(github.com/tats-u/markdown-cjk-friendly, specification.md), which change nothing elsewhere.
"""

import unicodedata

from markdown_it import MarkdownIt
from markdown_it.common.utils import isMdAsciiPunct, isPunctChar, isWhiteSpace
from markdown_it.parser_inline import ParserInline
from markdown_it.rules_inline.state_inline import Scanned, StateInline
from markdown_it.token import Token
from markdown_it.utils import EnvType

_FIRST = 0x1100
_HANGUL_LETTERS = (range(0x1160, 0x1200), range(0xD7B0, 0xD800))
"""Letters that Unicode gives no width, as they combine."""
_IDEOGRAPHIC_VARIANTS = range(0xE0100, 0xE01F0)
_TEXT_VARIANTS = range(0xFE00, 0xFE0F)
_NO_EMOJI = range(0x2E80, 0x1F000)
"""Where symbols as wide as ideographs are none of the emoji."""


def is_cjk(character: str) -> bool:
    """Whether it is a letter, mark or symbol of those languages, emoji aside."""
    code = ord(character)
    if code < _FIRST:
        return False
    if code in _IDEOGRAPHIC_VARIANTS or any(code in letters for letters in _HANGUL_LETTERS):
        return True
    if unicodedata.east_asian_width(character) not in "WFH":
        return False
    return code in _NO_EMOJI or unicodedata.category(character) not in ("So", "Sk")


class CjkInline(ParserInline):
    """markdown-it's parser of what stands in a line, with delimiters judged so."""

    def parse(self, src: str, md: MarkdownIt, env: EnvType, tokens: list[Token]) -> list[Token]:
        """See `ParserInline.parse`, which has no way to be given another state."""
        state = _State(src, md, env, tokens)
        self.tokenize(state)
        for rule in self.ruler2.getRules(""):
            rule(state)
        return state.tokens


class _State(StateInline):
    def scanDelims(self, start: int, canSplitWord: bool) -> Scanned:  # noqa: N802, N803
        scanned = super().scanDelims(start, canSplitWord)
        end = start + scanned.length
        before, after = self._before(start), self.src[end] if end < self.posMax else " "
        adjoins = is_cjk(before) or is_cjk(after)
        if not adjoins or isWhiteSpace(ord(before)) or isWhiteSpace(ord(after)):
            return scanned
        # It is on the left of something and on the right of something, whatever that is.
        return Scanned(
            canSplitWord or _is_mark(before), canSplitWord or _is_mark(after), scanned.length
        )

    def _before(self, start: int) -> str:
        """The character before a delimiter, without a selector of how that looks."""
        if start > 1 and ord(self.src[start - 1]) in _TEXT_VARIANTS:
            return self.src[start - 2]
        return self.src[start - 1] if start else " "


def _is_mark(character: str) -> bool:
    return isMdAsciiPunct(ord(character)) or isPunctChar(character)
