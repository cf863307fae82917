"""What `doctor` shows: a list in the terminal, or JSON for scripts."""

import json
import sys
from collections import Counter
from typing import Protocol

from rich.console import Console
from rich.table import Table
from rich.text import Text

from letta_matrix.cli.doctor.finding import Finding, Mark, exit_status, unknown
from letta_matrix.common.lenient_json import printable

_SIGNS = {
    Mark.OK: ("✓", "green"),
    Mark.WARNING: ("!", "yellow"),
    Mark.TROUBLE: ("✗", "bold red"),
    Mark.UNKNOWN: ("?", "cyan"),
}
_NAME = 18
"""Columns of a check's name: that of the longest."""
_UNWRAPPED = 100_000
"""Columns where nobody looks at a terminal: a path in a file or a pipe is to stay whole."""
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
    """A line for each thing that is well; with how it shows and what to do for one that is not."""

    def __init__(self, console: Console | None = None) -> None:
        width = None if sys.stdout.isatty() else _UNWRAPPED
        self._console = console or Console(highlight=False, width=width)
        self._counts: Counter[Mark] = Counter()
        self._unknown: dict[str, list[str]] = {}

    def show(self, finding: Finding) -> None:
        self._counts[finding.mark] += 1
        if finding.mark is Mark.UNKNOWN:
            # One that is down keeps many things from being looked at.
            self._unknown.setdefault(finding.says, []).append(finding.name)
        else:
            self._print(finding, finding.name)

    def end(self) -> None:
        for says, names in self._unknown.items():
            several = f"{len(names)} checks" if len(names) > 1 else names[0]
            listed = f"{says}: {', '.join(names)}" if len(names) > 1 else says
            self._print(unknown(listed), several)
        counts = [(self._counts[mark], said) for mark, said in _SUMMARY.items()]
        self._console.print("\n" + ", ".join(f"{count} {said}" for count, said in counts if count))

    def _print(self, finding: Finding, name: str) -> None:
        sign, style = _SIGNS[finding.mark]
        says = Text(_plain(finding.says))
        self._print_row(Text(sign, style), Text(_plain(name), "bold"), says)
        for what, text in (("shows as: ", finding.shows), ("what to do: ", finding.remedy)):
            if text:
                self._print_row(Text(), Text(), Text(what, "dim") + Text(_plain(text)))

    def _print_row(self, *cells: Text) -> None:
        # By itself: others in one table would be filled up to the longest of them.
        line = Table.grid(padding=(0, 1))
        line.add_column(width=1)
        line.add_column(width=_NAME)
        line.add_column(overflow="fold")  # a path that is cut off leads nowhere
        line.add_row(*cells)
        self._console.print(line)


def _plain(text: str) -> str:
    """What others have said may hold anything."""
    return "\n".join(printable(line) for line in text.split("\n"))
