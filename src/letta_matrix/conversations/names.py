"""Names that strangers chose (people, rooms, files), made harmless for a line of a prompt."""

import re
import unicodedata

MAX_NAME = 80
"""Characters of a name that are kept."""

_SPACES = re.compile(r"\s+")
_SAME = {"<": "\u2039", ">": "\u203a"}
_BRACKETS = {"Ps": "\u2039", "Pe": "\u203a"}


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
    return _SAME.get(character) or _BRACKETS.get(unicodedata.category(character), character)
