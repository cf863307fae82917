"""What a person types when a tool asks to be run."""

import re
from dataclasses import dataclass

from letta_matrix.matrix.reactions import ALLOW, ALWAYS, DENY

_YES = {"y", "yes", "ok", "allow", ALLOW}
_NO = {"n", "no", "deny", DENY}
_ALWAYS = "always"
_NO_BECAUSE = re.compile(r"(?:no|n|deny)[,.:!]\s*(.+)", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Decision:
    """The reaction that answers; a denial may have a reason."""

    reaction: str
    reason: str = ""


def said_plainly(line: str, *, always: bool) -> Decision | None:
    """The decision that a line is, word for word; None for any other line, and for an "always"
    that is not offered."""
    word = line.lower().removesuffix(".")
    if word in _YES:
        return Decision(ALLOW)
    if word in _NO:
        return Decision(DENY)
    return Decision(ALWAYS) if word == _ALWAYS and always else None


def decided(line: str, *, always: bool) -> Decision | None:
    """What somebody decided who was asked: nothing typed is No, and what is neither yes nor no
    is why not. None for an "always" that is not offered."""
    if (plainly := said_plainly(line or "no", always=always)) is not None:
        return plainly
    if line.lower() == _ALWAYS:
        return None
    because = _NO_BECAUSE.fullmatch(line)
    return Decision(DENY, because[1] if because else line)


def asking(*, always: bool) -> str:
    """The prompt for such a decision."""
    return f"Allow? [y/N/{'always/' if always else ''}reason] "
