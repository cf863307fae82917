"""How the bridge is: named checks, each with what is wrong and what to do about it.

Whoever knows how a part is says so here, under a name. `/health`, `!status`,
`letta-matrix status` and `letta-matrix doctor` tell it.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """How a check stands. Of a warning an operator is to know, and the bridge does all the same
    what it is for."""

    OK = "ok"
    WARNING = "warning"
    TROUBLE = "trouble"


@dataclass(frozen=True, slots=True)
class Trouble:
    """What is wrong, in a sentence for an operator, and what to do; "": it may pass by itself.
    `who` are the people and agents concerned, by name, with what only admins are to read.
    `warns`: it is a warning."""

    says: str
    remedy: str = ""
    who: str = ""
    warns: bool = False

    def __str__(self) -> str:
        between = " " if self.says.endswith((".", "?")) else ": "
        return f"{self.says}{between}{self.remedy}" if self.remedy else self.says


@dataclass(frozen=True, slots=True)
class Check:
    """How one thing is. `says` and the rest are empty where nothing is wrong."""

    name: str
    state: State
    says: str = ""
    remedy: str = ""
    who: str = ""


Probe = Callable[[], Trouble | None]
"""Tells what is wrong now, without waiting for anything."""


class Vitals:
    """All checks of one process, in the order in which they were first named."""

    def __init__(self) -> None:
        self._probes: dict[str, Probe] = {}

    def watch(self, name: str, probe: Probe) -> None:
        """Ask `probe` whenever somebody wants to know."""
        self._probes[name] = probe

    def of(self, name: str) -> Trouble | None:
        """What is wrong with one thing."""
        probe = self._probes.get(name)
        return None if probe is None else probe()

    def checks(self) -> list[Check]:
        """How everything is."""
        return [_check(name, probe()) for name, probe in self._probes.items()]


def lines(checks: Iterable[Check], state: State) -> list[str]:
    """What the checks that stand so say, each thing once, in a line; without names for anybody."""
    found = (Trouble(one.says, one.remedy) for one in checks if one.state is state)
    return list(dict.fromkeys(map(str, found)))


def said(text: str | None, *, warns: bool = False) -> Trouble | None:
    """The trouble of a part that tells it in words, with nothing to do or what to do among them;
    "" and None: there is none."""
    return Trouble(text, warns=warns) if text else None


def _check(name: str, trouble: Trouble | None) -> Check:
    if trouble is None:
        return Check(name, State.OK)
    state = State.WARNING if trouble.warns else State.TROUBLE
    return Check(name, state, trouble.says, trouble.remedy, trouble.who)
