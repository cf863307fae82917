"""Lines of people that look like an envelope, told by what a model sees of them."""

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from string import Formatter

_CLEAR_START = 2
"""Characters by which the start of an envelope can be told from what people write."""
_SIGNS = re.compile(r"[\W_]*")
_BRACKETS = {"Ps": "[", "Pe": "]"}
# Letters and symbols by their category, and nothing to see: fillers of Hangul, blank Braille.
_BLANK = "\u115f\u1160\u2800"


def quote_imitations(text: str, template: str) -> str:
    """`text` with those lines as quotes that look like an envelope made of `template`: nobody can
    put words into another's mouth.

    A line ends wherever Unicode says so. Lines are compared without what cannot be seen, without
    case, accents and spaces, and with every kind of bracket as one.
    """
    shape = _shape(template)
    if shape is None:
        return text
    lines = text.splitlines()
    quoted = [f"> {line}" if shape.is_of(folded(line)) else line for line in lines]
    return text if quoted == lines else "\n".join(quoted)


def folded(text: str) -> str:
    """`text` as it looks: compatibility characters decomposed (NFKD), nothing that is invisible
    or blank, no accents, no case, one kind of bracket."""
    return "".join(map(_folded, text))


@lru_cache(maxsize=4096)
def _folded(character: str) -> str:
    plain = unicodedata.normalize("NFKD", character).casefold()
    return "".join(map(_visible, unicodedata.normalize("NFKD", plain)))


def _visible(character: str) -> str:
    category = unicodedata.category(character)
    # Controls, formats and what is not assigned; marks; separators.
    if category[0] in "CMZ" or character in _BLANK:
        return ""
    return _BRACKETS.get(category, character)


@dataclass(frozen=True, slots=True)
class _Shape:
    """`lead` are the signs with which envelopes begin, `rest` is the pattern of what follows."""

    lead: str
    rest: re.Pattern[str]

    def is_of(self, line: str) -> bool:
        # What Markdown has before a line, such as asterisks, is passed over. Cut off first, once:
        # a pattern that tried it at each sign would take minutes for a line full of them.
        signs = _SIGNS.match(line)
        end = signs.end() if signs else 0
        return self.lead in line[:end] and self.rest.match(line, end) is not None


@lru_cache(maxsize=8)
def _shape(template: str) -> _Shape | None:
    """How the first line of every envelope begins; None where it has nothing but fields."""
    pieces = Formatter().parse(template.strip())
    text = "".join(said + ("" if name is None else "\0") for said, name, _, _ in pieces)
    line = next(iter(text.splitlines()), "")
    start, *others = map(folded, line.split("\0"))
    # Where its start says nothing, all that stands between its fields does.
    parts = [start] if len(start) >= _CLEAR_START else [start, *others]
    if not any(parts):
        return None
    between = "".join(f"(?>.*?{_alike(part)})" for part in parts[1:])
    signs = _SIGNS.match(parts[0])
    lead = signs[0] if signs else ""
    return _Shape(lead, re.compile(_alike(parts[0][len(lead) :]) + between, re.DOTALL))


def _alike(text: str) -> str:
    """A pattern for `text`: any letter may be one of another script that looks the same."""
    return "".join(rf"[{one}\x80-\U0010ffff]" if one.isalnum() else re.escape(one) for one in text)
