"""Tags of people that look like the notes by which a runtime itself speaks to its agents."""

import html
import re
from html.entities import html5

from letta_matrix.conversations.looks import alike, looks

_NOTES = (
    *("system reminder", "system alert", "system notification", "system message", "system prompt"),
    *("task notification", "channel notification", "user prompt submit hook", "local command"),
    *("memory update", "memory metadata", "memory filesystem"),
)
"""What Letta Code 0.34 puts around words of its own, and what models know from elsewhere."""
_BLUNT = "\u2039"
_OPENING = "<\ufe64\uff1c\u02c2\u1438\u276e\u2770\u3008\u2329\u27e8\u29fc\u227a\u00ab\u300a"
"""Signs that look like the one a tag begins with."""
# Some need no semicolon, whatever follows (HTML: Named character references).
_BARE = "|".join(sorted((one for one in html5 if not one.endswith(";")), key=len, reverse=True))
_AMP = r"(?:amp;?)*"
_ENTITY = re.compile(
    f"&{_AMP}(?:#\\d{{1,9}};?|#x[0-9a-f]{{1,8}};?|[a-z]{{2,9}};|{_BARE})", re.IGNORECASE
)
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
    return html.unescape(re.sub(f"(?<=&){_AMP}", "", entity, count=1, flags=re.IGNORECASE))
