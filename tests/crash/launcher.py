"""Runs bridges that kill themselves, or another process, with SIGKILL at a named point.

    python -m tests.crash.launcher

Each line of its input, `[CONFIG, LOG]`, starts a bridge, one at a time. They are forked from
a process that has imported everything and worked out what all have in common, which spares each
start a second.

The product knows nothing of this: functions of it are wrapped from outside. The trap is set by
a file beside the configuration, `trap.json`, that is looked for with each transaction and with
each call of a point's method: `{"point", "text", "victim"}`. Calls count from the moment a
transaction brings `text`, or from the first look where that is null. `victim` is the process
that dies, null for the bridge itself. Without the file it is the plain bridge.
"""

import asyncio
import gc
import inspect
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from aiohttp import web
from sqlalchemy import Connection
from tests import unsynced
from tests.crash.points import POINTS, Moment, Point
from tests.servers import _die_with_parent

from letta_matrix.app.bridge import Bridge, run
from letta_matrix.config import load_config
from letta_matrix.conversations.dispatcher import Dispatcher
from letta_matrix.conversations.turn_runner import TurnRunner
from letta_matrix.matrix.appservice import Appservice
from letta_matrix.store.database import Database

TRAP = "trap.json"


class Trap:
    """Counts the calls of the point it is set for, and kills at the right one."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._name = ""
        self._point: Point | None = None
        self._victim: int | None = None
        self._calls = 0
        self._committing: ContextVar[bool] = ContextVar("committing", default=False)

    def set_up(self) -> None:
        """Wrap every point's method, and whatever else the moments need."""
        answering = {p.method for p in POINTS.values() if p.moment is Moment.ANSWERED}
        for owner, method in {(point.owner, point.method) for point in POINTS.values()}:
            if method not in answering:
                self._wrap(owner, method)
        self._answer_last()
        self._guard_commits()
        self._hold_turns()
        # Wrapped last, so that it is set before the point's own wrapper counts.
        self._listen()

    def kill(self) -> None:
        self._file.unlink()
        self._point = None
        os.write(2, f"dying: {self._name}\n".encode())
        os.kill(self._victim or os.getpid(), signal.SIGKILL)

    def _look(self, events: list[Mapping[str, Any]]) -> None:
        if self._point is not None or not self._file.exists():
            return
        told = json.loads(self._file.read_text())
        if told["text"] is None or any(_says(event, told["text"]) for event in events):
            self._name, self._victim, self._calls = told["point"], told["victim"], 0
            self._point = POINTS[self._name]

    def _listen(self) -> None:
        original = Dispatcher.admit

        async def admit(*args: Any, **kwargs: Any) -> None:
            self._look(args[-1])
            await original(*args, **kwargs)

        Dispatcher.admit = admit  # pyright: ignore[reportAttributeAccessIssue]

    def _hit(self, owner: type, method: str, args: Any, kwargs: Any) -> Moment | None:
        """The moment of this call to kill in, if it is the one."""
        self._look([])
        point = self._point
        if point is None or (point.owner, point.method) != (owner, method):
            return None
        if not point.when(*args, **kwargs):
            return None
        self._calls += 1
        return point.moment if self._calls == point.call else None

    def _wrap(self, owner: type, method: str) -> None:
        original = getattr(owner, method)

        async def call(*args: Any, **kwargs: Any) -> Any:
            moment = self._hit(owner, method, args, kwargs)
            self._before(moment)
            result = await original(*args, **kwargs)
            self._after(moment)
            return result

        def call_plain(*args: Any, **kwargs: Any) -> Any:
            moment = self._hit(owner, method, args, kwargs)
            self._before(moment)
            result = original(*args, **kwargs)
            self._after(moment)
            return result

        setattr(owner, method, call if inspect.iscoroutinefunction(original) else call_plain)

    def _before(self, moment: Moment | None) -> None:
        if moment is Moment.BEFORE:
            self.kill()
        if moment is Moment.COMMIT:
            self._committing.set(True)

    def _after(self, moment: Moment | None) -> None:
        if moment is Moment.AFTER:
            self.kill()

    def _guard_commits(self) -> None:
        original = Database.write

        async def write(database: Database, work: Callable[[Connection], Any]) -> Any:
            committing = self._committing.get()

            def last_words(connection: Connection) -> Any:
                result = work(connection)
                if committing:
                    self.kill()
                return result

            return await original(database, last_words)

        Database.write = write  # type: ignore[method-assign]

    def _answer_last(self) -> None:
        original: Any = Appservice._transaction
        trap = self

        class LastResponse(web.Response):
            async def write_eof(self, data: bytes = b"") -> None:
                await super().write_eof(data)
                trap.kill()

        async def transaction(*args: Any, **kwargs: Any) -> Any:
            response = await original(*args, **kwargs)
            if self._hit(Appservice, "_transaction", args, kwargs) is None:
                return response
            return LastResponse(body=response.body, content_type="application/json")

        Appservice._transaction = transaction

    def _hold_turns(self) -> None:
        original = TurnRunner.run

        async def hold(*args: Any, **kwargs: Any) -> None:
            if self._point is not None and self._point.moment is Moment.ANSWERED:
                await asyncio.Event().wait()
            await original(*args, **kwargs)

        TurnRunner.run = hold


def _says(event: Mapping[str, Any], text: str) -> bool:
    is_person = event.get("sender", "").startswith(("@crash", "@talk_"))
    return is_person and text in str(event.get("content"))


async def _make_ready(config: Path) -> None:
    """What bridges of this configuration would import, and work out of their tools, each one by
    itself."""
    bridge = Bridge(load_config(config))
    bridge.app.offer_tools()
    await bridge.app.homeserver.close()


def _become_bridge(config: Path, log: Path) -> None:
    _die_with_parent()
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    written = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.dup2(written, 1)
    os.dup2(written, 2)
    Trap(config.with_name(TRAP)).set_up()
    asyncio.run(run(load_config(config)))
    # Taking apart all that was imported would copy each page of it, for nobody.
    os._exit(0)


def main() -> None:
    """Fork a bridge for each line, tell its process id, and its exit code when it has ended."""
    _die_with_parent()
    unsynced.in_this_process()
    ready = set[Path]()
    for line in sys.stdin:
        config, log = (Path(path) for path in json.loads(line))
        if config not in ready:
            asyncio.run(_make_ready(config))
            ready.add(config)
        # Or the collector would write into all pages that the two have in common.
        gc.freeze()
        pid = os.fork()
        if pid == 0:
            _become_bridge(config, log)
        print(pid, flush=True)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
