"""How texts look to who reads them, people and models: what two that look the same have alike."""

import re
import unicodedata
from functools import lru_cache

_BRACKETS = {"Ps": "[", "Pe": "]"}
# Letters and symbols by their category, and nothing to see: fillers of Hangul, blank Braille.
_BLANK = "\u115f\u1160\u2800"
_LETTER = re.compile(r"(?:NEGATIVE .*LATIN CAPITAL LETTER|REGIONAL INDICATOR.* LETTER) ([A-Z])\Z")
"""Symbols that are letters in white on black, which do not decompose."""


def looks(text: str) -> str:
    """`text` as it looks: compatibility characters decomposed (NFKD), nothing that is invisible
    or blank, no accents, no case, one kind of bracket."""
    return "".join(map(_folded, text))


@lru_cache(maxsize=4096)
def _folded(character: str) -> str:
    if (letter := _LETTER.search(unicodedata.name(character, ""))) is not None:
        return letter[1].lower()
    plain = unicodedata.normalize("NFKD", character).casefold()
    return "".join(map(_visible, unicodedata.normalize("NFKD", plain)))


def _visible(character: str) -> str:
    category = unicodedata.category(character)
    # Controls, formats and what is not assigned; marks; separators.
    if category[0] in "CMZ" or character in _BLANK:
        return ""
    return _BRACKETS.get(category, character)


def alike(text: str) -> str:
    """A pattern for `text`: any letter may be one of another script that looks the same."""
    return "".join(_any_like(one) if one.isalnum() else re.escape(one) for one in text)


def _any_like(letter: str) -> str:
    # By what it is not: sets that reach to Unicode's end take a hundred times as long to compile.
    others = f"-\\x{ord(letter) - 1:02x}\\x{ord(letter) + 1:02x}" if letter.isascii() else ""
    return f"[^\\x00{others}-\\x7f]"
