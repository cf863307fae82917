"""What a run found out: figures by name, their targets, and how they are shown."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.markup import escape
from rich.table import Table

Relation = Literal["<=", ">="]


def p50(values: Sequence[float]) -> float:
    return statistics.median(values)


def p95(values: Sequence[float]) -> float:
    """The 95th percentile, by the nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]


def ms(seconds: float) -> float:
    return round(seconds * 1000, 1)


@dataclass(frozen=True, slots=True)
class Target:
    """What a figure should be: `relation` `bound`."""

    relation: Relation
    bound: float

    def reached_by(self, value: float) -> bool:
        return value <= self.bound if self.relation == "<=" else value >= self.bound

    def __str__(self) -> str:
        return f"{self.relation} {self.bound:g}"


def at_most(bound: float) -> Target:
    return Target("<=", bound)


def at_least(bound: float) -> Target:
    return Target(">=", bound)


@dataclass(frozen=True, slots=True)
class Figure:
    """One row: a value, its target if it has one, and a word on what it means."""

    name: str
    value: float
    meaning: str
    target: Target | None = None

    @property
    def reached(self) -> bool | None:
        return None if self.target is None else self.target.reached_by(self.value)


@dataclass(slots=True)
class Figures:
    """The figures of a run, in order, and what could not be measured."""

    rows: list[Figure] = field(default_factory=list[Figure])
    faults: list[str] = field(default_factory=list[str])

    def add(self, name: str, value: float, meaning: str, target: Target | None = None) -> None:
        self.rows.append(Figure(name, round(value, 3), meaning, target))

    def show(self, console: Console) -> None:
        """Print the table."""
        table = Table(title="letta-matrix bench", title_justify="left")
        table.add_column("figure", overflow="fold")
        table.add_column("value", justify="right")
        table.add_column("target", justify="right", no_wrap=True)
        table.add_column("reached")
        table.add_column("what it is", overflow="fold")
        for row in self.rows:
            target = "" if row.target is None else str(row.target)
            table.add_row(row.name, f"{row.value:g}", target, _word(row.reached), row.meaning)
        console.print(table)
        for fault in self.faults:
            console.print(f"[red]not measured:[/] {escape(fault)}")

    def write(self, path: Path, about: dict[str, object]) -> None:
        """Write JSON: each figure by its name, then `rows` with targets, and `about` the run."""
        rows = [
            {
                "name": row.name,
                "value": row.value,
                "target": None if row.target is None else str(row.target),
                "reached": row.reached,
                "meaning": row.meaning,
            }
            for row in self.rows
        ]
        values: dict[str, object] = {row.name: row.value for row in self.rows}
        path.parent.mkdir(parents=True, exist_ok=True)
        document = {**values, "rows": rows, "not_measured": self.faults, "about": about}
        text = json.dumps(document, indent=2, ensure_ascii=False)
        path.write_text(text + "\n", encoding="utf-8")


def _word(reached: bool | None) -> str:
    if reached is None:
        return ""
    return "[green]yes[/]" if reached else "[red]no[/]"
