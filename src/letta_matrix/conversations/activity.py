"""Shows the tools an agent uses, in an event of its own beside the reply: a line while they run, a
collapsible trace afterwards."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field

import structlog

from letta_matrix.common import clock
from letta_matrix.common.backoff import Backoff
from letta_matrix.common.waiting import is_set
from letta_matrix.conversations.reply import Reply
from letta_matrix.matrix.verbatim import fenced, inline_code
from letta_matrix.runtimes.protocol import ToolReturned, ToolStarted
from letta_matrix.store.outbox import OutboxEntry, OutboxKind

log = structlog.get_logger()

_SHOWN_AFTER = 0.7
"""Seconds a tool runs before it is shown."""

_PAUSES = Backoff(1.0, 60.0, growth=1.4)
_NEWS_AFTER = 5.0
"""Seconds at most until a change is shown, whatever the pause."""

_KEY, _KEY_AT_END = "tools", "tools at the end"

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


class Activity:
    """The tools of one turn, from its first try to its end.

    While they run one line tells of them; at the end the event, or a new one after the reply,
    holds the trace. A turn that is followed again tells its tools again: calls are known by
    their ids, the event by its key. With `timed` False (what comes may be old) no times are shown.
    """

    def __init__(self, reply: Reply, enabled: bool, *, timed: bool = True) -> None:
        self._reply = reply
        self._enabled = enabled
        self._timed = timed
        self._uses: dict[str, ToolUse] = {}
        self._changed = asyncio.Event()
        # Held while the event is posted: what is cut short there has an unknown outcome.
        self._posting = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    def started(self, event: ToolStarted) -> None:
        """The agent called a tool."""
        if not self._enabled or event.call_id in self._uses:
            return
        self._uses[event.call_id] = ToolUse(event.name, event.arguments)
        self._changed.set()
        if self._task is None:
            self._task = asyncio.create_task(self._show())

    def tool_of(self, call_id: str) -> str:
        """The tool that a call is of, "" where no tools are shown."""
        use = self._uses.get(call_id)
        return "" if use is None else use.name

    def returned(self, event: ToolReturned) -> None:
        """A tool call ended."""
        use = self._uses.get(event.call_id)
        if use is None or use.ended is not None:
            return
        use.ended, use.ok, use.output = clock.now(), event.ok, event.output
        self._changed.set()

    def denied(self, event: ToolReturned) -> None:
        """A tool call was denied by people, which its question tells: it is no tool in use, unless
        the line shows it already."""
        if self._reply.beside.posted(OutboxKind.TRACE, _KEY) is None:
            self._uses.pop(event.call_id, None)
        else:
            self.returned(event)

    async def finish(self) -> None:
        """Hand the trace to the reply, which is about to end; sends nothing by itself."""
        if self._task is not None:
            async with self._posting:
                self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._uses:
            uses = list(self._uses.values())
            markdown, key = trace(uses, timed=self._timed), _KEY
            if not self._reply.beside.stands_last(OutboxKind.TRACE, key):
                # Words have begun below the line, and the trace stands below them all.
                line = status_line(uses, timed=self._timed, over=True)
                self._reply.beside.post_at_end(OutboxKind.TRACE, key, line)
                key = _KEY_AT_END
            self._reply.beside.post_at_end(OutboxKind.TRACE, key, markdown)

    def close(self) -> None:
        """Show nothing more."""
        if self._task is not None:
            self._task.cancel()

    async def _show(self) -> None:
        try:
            await self._long_running()
            line = self._line()
            async with self._posting:
                entry = await self._reply.beside.post(OutboxKind.TRACE, _KEY, line)
            await self._follow(entry, line)
        except Exception as error:
            log.error("tools are not shown", turn=self._reply.turn.turn_id, exc_info=error)

    async def _long_running(self) -> None:
        """Wait until a tool has run long enough to be shown."""
        while True:
            self._changed.clear()
            since = [use.started for use in self._uses.values() if use.ended is None]
            if not since:
                await self._changed.wait()
                continue
            left = min(since) + _SHOWN_AFTER - clock.now()
            if left <= 0:
                return
            await is_set(self._changed, left)

    async def _follow(self, entry: OutboxEntry, shown: str) -> None:
        pauses = iter(_PAUSES)
        pause = next(pauses)
        while True:
            self._changed.clear()
            least = min(pause, _NEWS_AFTER)
            await asyncio.sleep(least)
            await is_set(self._changed, pause - least)
            if (line := self._line()) != shown:
                await self._reply.beside.rewrite_interim(entry, line)
                shown, pause = line, next(pauses)

    def _line(self) -> str:
        return status_line(list(self._uses.values()), timed=self._timed)


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
