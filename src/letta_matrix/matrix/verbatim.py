"""Markdown that shows a text exactly as it is: nothing of it hides, nothing of it is markup."""

import json
import re
from urllib.parse import quote

_BACKTICKS = re.compile("`+")
_INVISIBLE = frozenset(
    # Printable by their Unicode categories, and yet nothing or a blank to see.
    "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0"
) | frozenset(map(chr, [*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)]))


def visible(text: str, *, keep: str = "") -> str:
    """`text` with every character that cannot be seen, or that moves others, as JSON escapes it.

    That are controls, bidi and zero-width characters, blanks other than the space, and whatever
    Unicode does not know; those in `keep` stay.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c in keep or _is_seen(c) else json.dumps(c)[1:-1] for c in text)


def inline_code(text: str, *, limit: int = 200) -> str:
    """`text` as a code span in one line, cut after `limit` characters."""
    shown = visible(text if len(text) <= limit else f"{text[:limit]}…") or " "
    ticks = "`" * (_longest_run(shown) + 1)
    # One of blanks alone keeps them, any other loses one at either end if both have one
    # (CommonMark: Code spans).
    pad = " " if shown.strip() and (shown[0] in "` " or shown[-1] in "` ") else ""
    return f"{ticks}{pad}{shown}{pad}{ticks}"


def link(shown: str, identifier: str) -> str:
    """A link to a user, room or alias (spec appendices: matrix.to navigation); `shown` is
    Markdown."""
    return f"[{shown}](https://matrix.to/#/{quote(identifier, safe='')})"


def fenced(text: str, language: str = "") -> str:
    """`text` as a fenced code block with its line ends and tabs, which it cannot break out of."""
    return in_fence(visible(text, keep="\n\t"), language)


def in_fence(text: str, language: str = "") -> str:
    """`text` to the letter as a fenced code block, which nothing in it can end."""
    fence = "`" * max(_longest_run(text) + 1, 3)
    return f"{fence}{language}\n{text}\n{fence}"


def _is_seen(character: str) -> bool:
    return character.isprintable() and character not in _INVISIBLE


def _longest_run(text: str) -> int:
    return max((len(run) for run in _BACKTICKS.findall(text)), default=0)
