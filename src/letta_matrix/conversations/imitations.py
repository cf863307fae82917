"""Words of people that look like the bridge's or a runtime's own, told by what a model sees."""

import html
import re
from dataclasses import dataclass
from functools import lru_cache
from string import Formatter

from letta_matrix.conversations.imitated_notes import blunt_notes
from letta_matrix.conversations.looks import alike, looks

_CLEAR_START = 2
"""Characters by which the start of an envelope can be told from what people write."""
_SIGNS = re.compile(r"[\W_]*")
_MARKUP = re.compile(r"(?:<[^<>]{0,100}>|\w{1,4}[.\]:]|[\W_])*")
"""Tags, numbers and letters of lists, and signs."""


def quote_imitations(text: str, template: str) -> str:
    """`text` with those lines as quotes that look like an envelope made of `template`, and with
    no tag of a runtime's own notes: nobody can put words into another's mouth.

    A line ends wherever Unicode says so. Lines are compared without what cannot be seen, without
    case, accents and spaces, with every kind of bracket as one, and with HTML entities as what
    they stand for.
    """
    text, shape = blunt_notes(text), _shape(template)
    if shape is None:
        return text
    lines = text.splitlines()
    quoted = [f"> {line}" if shape.is_of(looks(html.unescape(line))) else line for line in lines]
    return text if quoted == lines else "\n".join(quoted)


@dataclass(frozen=True, slots=True)
class _Shape:
    """`lead` are the signs with which envelopes begin, `rest` is the pattern of what follows."""

    lead: str
    rest: re.Pattern[str]

    def is_of(self, line: str) -> bool:
        # What Markdown has before a line, such as asterisks, is passed over. Cut off first, once:
        # a pattern that tried it at each sign would take minutes for a line full of them.
        return any(self._follows(line, before.match(line)) for before in (_SIGNS, _MARKUP))

    def _follows(self, line: str, before: re.Match[str] | None) -> bool:
        end = before.end() if before else 0
        return self.lead in line[:end] and self.rest.match(line, end) is not None


@lru_cache(maxsize=8)
def _shape(template: str) -> _Shape | None:
    """How the first line of every envelope begins; None where it has nothing but fields."""
    pieces = Formatter().parse(template.strip())
    text = "".join(said + ("" if name is None else "\0") for said, name, _, _ in pieces)
    line = next(iter(text.splitlines()), "")
    start, *others = map(looks, line.split("\0"))
    # Where its start says nothing, all that stands between its fields does.
    parts = [start] if len(start) >= _CLEAR_START else [start, *others]
    if not any(parts):
        return None
    between = "".join(f"(?>.*?{alike(part)})" for part in parts[1:])
    signs = _SIGNS.match(parts[0])
    lead = signs[0] if signs else ""
    return _Shape(lead, re.compile(alike(parts[0][len(lead) :]) + between, re.DOTALL))
