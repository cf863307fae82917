"""The tools a turn used, in words: a line while they run, a collapsible trace afterwards."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from letta_matrix.common import clock
from letta_matrix.matrix.verbatim import fenced, inline_code

_MAX_BYTES = 40_000
"""Of an edit's content, for the calls of a trace."""

_INDENTED = 2 * len("    ")
_MARKUP = 150

_LONGEST_ARGUMENTS = 500
_LONGEST_OUTPUT = 1_000
_MOST_NAMES = 3


@dataclass(slots=True)
class ToolUse:
    """One call of a tool; times are monotonic, in seconds. `ended` is None while it runs."""

    name: str
    arguments: str
    started: float = field(default_factory=clock.now)
    ended: float | None = None
    ok: bool = True
    output: str = ""


def status_line(uses: Sequence[ToolUse], *, timed: bool, over: bool = False) -> str:
    """What goes on now: the running tools and for how long, or how many there were if that is
    over."""
    running = [] if over else [use for use in uses if use.ended is None]
    if not running:
        return _summary(uses, timed=timed)
    names = list(dict.fromkeys(inline_code(use.name, limit=60) for use in running))
    shown = ", ".join(names[:_MOST_NAMES]) + (" …" if len(names) > _MOST_NAMES else "")
    done = len(uses) - len(running)
    age = _seconds(_busy(running))
    return " · ".join(
        [f"🔧 {shown}", *([age] if timed else []), *([f"{done} done"] if done else [])]
    )


def trace(uses: Sequence[ToolUse], *, timed: bool) -> str:
    """All calls, folded behind a summary; long texts are shortened, and so is the whole."""
    head, tail = f"<details><summary>{_summary(uses, timed=timed)}</summary>", "</details>"
    shown: list[str] = []
    room = _MAX_BYTES
    for number, use in enumerate(uses):
        entry = _entry(use, timed=timed)
        room -= _size(entry)
        if room < 0:
            shown.append(f"… and {_counted(len(uses) - number)} more")
            break
        shown.append(entry)
    return "\n\n".join([head, *shown, tail])


def _summary(uses: Sequence[ToolUse], *, timed: bool) -> str:
    summary = f"🔧 {_counted(len(uses))}"
    return f"{summary} · {_seconds(_busy(uses))}" if timed else summary


def _entry(use: ToolUse, *, timed: bool) -> str:
    end = "stopped" if use.ended is None else "ok" if use.ok else "failed"
    mark = "✓" if end == "ok" else "✗"
    took = f" · {_seconds(_busy([use]))}" if timed else ""
    blocks = [f"{mark} {inline_code(use.name, limit=60)} {end}{took}"]
    for text, limit in ((use.arguments, _LONGEST_ARGUMENTS), (use.output, _LONGEST_OUTPUT)):
        if text.strip():
            blocks.append(fenced(_shortened(text.strip("\n"), limit)))
    return "\n\n".join(blocks)


def _size(entry: str) -> int:
    """Bytes that an entry takes in an edit, from above: twice in plain text, where its lines are
    indented, and once in HTML."""
    plain = len(json.dumps(entry, ensure_ascii=False).encode("utf-8", "replace"))
    escaped = 4 * sum(map(entry.count, "&<>"))
    return 3 * plain + escaped + _INDENTED * (entry.count("\n") + 1) + _MARKUP


def _busy(uses: Sequence[ToolUse]) -> float:
    """Seconds in which at least one of these ran."""
    now, busy, until = clock.now(), 0.0, 0.0
    for use in sorted(uses, key=lambda use: use.started):
        end = now if use.ended is None else use.ended
        busy += max(end - max(use.started, until), 0.0)
        until = max(until, end)
    return busy


def _counted(tools: int) -> str:
    return f"{tools} tool{'' if tools == 1 else 's'}"


def _seconds(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _shortened(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    # The end is kept too: that is where errors stand.
    return f"{text[: limit * 2 // 3]}\n… {len(text) - limit:,} characters …\n{text[-limit // 3 :]}"
