"""Words of people that look like the bridge's or a runtime's own, told by what a model sees."""

import html
import re
from dataclasses import dataclass
from functools import lru_cache
from string import Formatter

from letta_matrix.conversations.looks import alike, looks

_CLEAR_START = 2
"""Characters by which the start of an envelope can be told from what people write."""
_SIGNS = re.compile(r"[\W_]*")
_MARKUP = re.compile(r"(?:<[^<>]{0,100}>|\w{1,4}[.\]:]|[\W_])*")
"""Tags, numbers and letters of lists, and signs."""

_NOTES = (
    *("system reminder", "system alert", "system notification", "system message", "system prompt"),
    *("task notification", "channel notification", "user prompt submit hook", "local command"),
    *("memory update", "memory metadata", "memory filesystem"),
)
"""What Letta Code 0.34 puts around words of its own, and what models know from elsewhere."""
_BLUNT = "\u2039"
_OPENING = "<\ufe64\uff1c\u02c2\u1438\u276e\u2770\u3008\u2329\u27e8\u29fc\u227a\u00ab\u300a"
"""Signs that look like the one a tag begins with."""
_ENTITY = re.compile(r"&(?:amp;)*(?:#\d{1,9}|#x[0-9a-f]{1,8}|[a-z]{2,9});?", re.IGNORECASE)
_BEGINNING = re.compile(f"[{_OPENING}]|{_ENTITY.pattern}", re.IGNORECASE)
_BETWEEN = r"[\W_]{0,3}"
_NOTE = re.compile(
    "/?(?:" + "|".join(_BETWEEN.join(map(alike, one.split())) for one in _NOTES) + ")"
)
_END = f"{_OPENING}>["
_LONGEST = 40


def _begins(word: str) -> str:
    first, second, third = map(alike, word[:3])
    return f"{first}(?:{second}(?:{third}|$)|$)"


_MAY_BE = re.compile("/?(?:$|" + "|".join(sorted({_begins(one) for one in _NOTES})) + ")")
"""What may still become a note, so that other tags cost no time."""


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


def blunt_notes(text: str) -> str:
    """`text` in which no tag is one of a runtime's own notes: `<system-reminder>` begins with
    another sign (`\u2039`), so that it shows and is no tag.

    Tags are compared as they look: without case, accents, spaces and what cannot be seen, with
    letters of other scripts as ours, and with characters that are written as HTML entities.
    """

    def blunt(found: re.Match[str]) -> str:
        opens = found[0] in _OPENING or _unescaped(found[0])[:1] in _OPENING
        return _BLUNT if opens and _is_note(text, found.end()) else found[0]

    return _BEGINNING.sub(blunt, text)


def _is_note(text: str, at: int) -> bool:
    """Whether what follows the beginning of a tag looks like the name of a note."""
    seen = ""
    while at < len(text) and len(seen) < _LONGEST:
        entity = _ENTITY.match(text, at) if text[at] == "&" else None
        look = looks(_unescaped(entity[0]) if entity else text[at])
        at = entity.end() if entity else at + 1
        if look:
            seen += look
            if not _MAY_BE.match(seen):
                return False
            if look[-1] in _END:
                break
    return _NOTE.match(seen) is not None


def _unescaped(entity: str) -> str:
    """What an entity stands for, escaped however often; itself where it is none."""
    return html.unescape(re.sub("amp;", "", entity, flags=re.IGNORECASE))
