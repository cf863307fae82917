"""How texts look to who reads them, people and models: what two that look the same have alike, and
names that strangers chose (people, rooms, files) made harmless for a line of a prompt."""

import re
import unicodedata
from functools import lru_cache

MAX_NAME = 80
"""Characters of a name that are kept."""

_SPACES = re.compile(r"\s+")
_SAME = {"<": "\u2039", ">": "\u203a"}
_QUOTES = {"Ps": "\u2039", "Pe": "\u203a"}

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


def plain_name(name: str, most: int = MAX_NAME) -> str:
    """`name` on one line of at most `most` characters, without controls and text direction.

    Every kind of bracket becomes an angle quote, so that a name cannot end or fake what stands
    around it.
    """
    text = _SPACES.sub(" ", "".join(_harmless(character) for character in name)).strip()
    return text if len(text) <= most else f"{text[: most - 1].rstrip()}\u2026"


def _harmless(character: str) -> str:
    if character.isspace():
        return " "
    if unicodedata.category(character).startswith("C"):
        return ""
    # Brackets also hide in what looks like them, such as a number in brackets.
    looks = unicodedata.normalize("NFKC", character)
    quoted = "".join(map(_without_bracket, looks))
    return character if quoted == looks else quoted


def _without_bracket(character: str) -> str:
    return _SAME.get(character) or _QUOTES.get(unicodedata.category(character), character)
