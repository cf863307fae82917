"""What `doctor` shows: a list in the terminal, or JSON for scripts."""

import json
from collections import Counter
from typing import Protocol

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from letta_matrix.common.lenient_json import printable
from letta_matrix.doctor.finding import Finding, Mark, exit_status

_SIGNS = {
    Mark.OK: ("✓", "green"),
    Mark.WARNING: ("!", "yellow"),
    Mark.TROUBLE: ("✗", "bold red"),
    Mark.UNKNOWN: ("?", "cyan"),
}
_STATUS = {0: "ok", 1: "trouble", 2: "unknown"}
_SUMMARY = {
    Mark.TROUBLE: "in trouble",
    Mark.WARNING: "to be known",
    Mark.UNKNOWN: "not looked at",
    Mark.OK: "well",
}


class View(Protocol):
    """Is shown findings as they come."""

    def show(self, finding: Finding) -> None: ...

    def end(self) -> None:
        """Those were all."""


class JsonView(View):
    """One object, at the end."""

    def __init__(self) -> None:
        self._found: list[Finding] = []

    def show(self, finding: Finding) -> None:
        self._found.append(finding)

    def end(self) -> None:
        print(json.dumps(report(self._found), indent=2))


def report(found: list[Finding]) -> dict[str, object]:
    """What `--json` prints."""
    return {
        "status": _STATUS[exit_status(found)],
        "findings": [
            {
                "check": one.name,
                "state": str(one.mark),
                "says": one.says,
                "shows": one.shows,
                "remedy": one.remedy,
            }
            for one in found
        ],
    }


class TerminalView(View):
    """A line for each thing that is well, and three for one that is not."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False, soft_wrap=False)
        self._counts: Counter[Mark] = Counter()

    def show(self, finding: Finding) -> None:
        self._counts[finding.mark] += 1
        sign, style = _SIGNS[finding.mark]
        line = (
            Text(f"{sign} ", style) + Text(finding.name, "bold") + Text(f"  {_plain(finding.says)}")
        )
        self._console.print(line)
        for what, text in (("shows as", finding.shows), ("what to do", finding.remedy)):
            if text:
                shown = Text(f"{what}: ", "dim") + Text(_plain(text))
                self._console.print(Padding(shown, (0, 0, 0, 4)))

    def end(self) -> None:
        counts = [f"{self._counts[mark]} {said}" for mark, said in _SUMMARY.items()]
        shown = [one for one in counts if not one.startswith("0 ")]
        self._console.print(f"\n{', '.join(shown)}")


def _plain(text: str) -> str:
    """What others have said may hold anything."""
    return "\n".join(printable(line) for line in text.split("\n"))
