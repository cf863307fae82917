"""Words of others, and times, as they may stand in a command's answer (Markdown)."""

import re
from urllib.parse import quote

from letta_matrix.matrix.formatting import clean_text
from letta_matrix.store.agents import Agent

# Not "[": after a backslash it begins a formula, and without "]" there is no link.
_MARKUP = re.compile(
    r"[\\`*\]|~$]|<(?=[A-Za-z/!?])|&(?=#?\w+;)|(?<![^\W_])_|_(?![^\W_])|\A[#>+\-=](?=\s|\Z)"
)
_UNITS = ((86_400, "d"), (3600, "h"), (60, "min"))


def plain(text: str, limit: int = 80) -> str:
    """`text` in one line, shortened, with nothing in it that Markdown would act on."""
    return _MARKUP.sub(r"\\\g<0>", _line(text, limit))


def name_of(agent: Agent) -> str:
    """An agent's name in bold."""
    return f"**{plain(agent.name) or plain(agent.agent_id)}**"


def link(shown: str, identifier: str) -> str:
    """A link to a user, room or alias (spec appendices: matrix.to navigation); `shown` is
    Markdown."""
    return f"[{shown}](https://matrix.to/#/{quote(identifier, safe='')})"


def span(seconds: float) -> str:
    """A length of time, roughly: `40 s`, `3 min`, `2 h`, `5 d`."""
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{max(int(seconds), 0)} s"


def ago(seconds: float) -> str:
    """How long ago, roughly."""
    return "just now" if seconds < 60 else f"{span(seconds)} ago"


def counted(number: int, noun: str) -> str:
    """`1 message`, `2 messages`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def clip(markdown: str, limit: int) -> str:
    """`markdown` without the lines that exceed `limit` bytes, said so at its end."""
    if len(markdown.encode()) <= limit:
        return markdown
    kept, size = list[str](), 0
    for line in markdown.splitlines():
        size += len(line.encode()) + 1
        if size > limit:
            break
        kept.append(line)
    return "\n".join([*kept, "", "… and more than fits here."])


def _line(text: str, limit: int) -> str:
    line = " ".join(clean_text(text).split())
    return line if len(line) <= limit else f"{line[: limit - 1]}…"
