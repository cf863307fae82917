"""What a check has found, and what all findings come to."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from letta_matrix.common.vitals import Trouble


class Mark(StrEnum):
    """How a finding stands: as the bridge's own checks do (`vitals.State`), or UNKNOWN, where
    it could not be looked at."""

    OK = "ok"
    WARNING = "warning"
    TROUBLE = "trouble"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at: what is so, or what is wrong (`says`), how that shows, and
    what to do; all in words for who runs the bridge. `name` is the check's where it is empty."""

    says: str
    mark: Mark = Mark.OK
    shows: str = ""
    remedy: str = ""
    name: str = ""


Findings = list[Finding]


def fine(says: str, name: str = "") -> Finding:
    """Nothing is wrong."""
    return Finding(says, name=name)


def warning(says: str, remedy: str, *, shows: str = "", name: str = "") -> Finding:
    """The bridge does what it is for; somebody should know all the same."""
    return Finding(says, Mark.WARNING, shows, remedy, name)


def trouble(says: str, remedy: str, *, shows: str = "", name: str = "") -> Finding:
    """It does not, or will not."""
    return Finding(says, Mark.TROUBLE, shows, remedy, name)


def unknown(says: str, remedy: str = "", *, name: str = "") -> Finding:
    """It could not be looked at."""
    return Finding(says, Mark.UNKNOWN, remedy=remedy, name=name)


def found(one: Trouble, *, shows: str = "", name: str = "") -> Finding:
    """What a part of the bridge says is wrong."""
    mark = Mark.WARNING if one.warns else Mark.TROUBLE
    return Finding(one.says, mark, shows, one.remedy, name)


def exit_status(findings: Iterable[Finding]) -> int:
    """1 where something is wrong, 2 where nothing is as far as could be looked at, else 0."""
    marks = {one.mark for one in findings}
    if Mark.TROUBLE in marks:
        return 1
    return 2 if Mark.UNKNOWN in marks else 0
