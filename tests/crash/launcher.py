"""Runs the bridge so that it kills itself with SIGKILL at a named point.

    python launcher.py CONFIG [--die-at POINT (--when-told TEXT | --at-once)]

The product knows nothing of this: functions of it are wrapped from outside. Calls count
from the moment a transaction brings TEXT, or from the start with `--at-once` (for a second
crash, during recovery). Without `--die-at` it is the plain bridge.
"""

import argparse
import asyncio
import inspect
import os
import signal
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, NoReturn

from aiohttp import web
from sqlalchemy import Connection

from letta_matrix.bridge import run
from letta_matrix.config import load_config
from letta_matrix.conversations.dispatcher import Dispatcher
from letta_matrix.conversations.reply import Reply
from letta_matrix.conversations.turn_runner import TurnRunner
from letta_matrix.matrix.appservice import Appservice
from letta_matrix.matrix.intent import Intent
from letta_matrix.runtimes.app_server.adapter import AppServer
from letta_matrix.runtimes.app_server.following import Follower
from letta_matrix.runtimes.keeper.client import KeeperClient
from letta_matrix.store.database import Database
from letta_matrix.store.inbox import Inbox
from letta_matrix.store.outbox import Outbox
from letta_matrix.store.turns import TurnStore

Filter = Callable[..., bool]


class Moment(Enum):
    """When to die in a call."""

    BEFORE = "before"
    AFTER = "after"
    COMMIT = "before the call's database transaction is committed"
    ANSWERED = "after the HTTP response that the call returns has been sent"


@dataclass(frozen=True)
class Point:
    """The `call`-th call of a method that `when` accepts, and a moment in it."""

    owner: type
    method: str
    moment: Moment
    call: int = 1
    when: Filter = lambda *_args, **_kwargs: True


def _completes(*_args: object, completes: object = None, **_kwargs: object) -> bool:
    return completes is not None


def _is_input(_client: object, frame: bytes, **_kwargs: object) -> bool:
    return b'"type": "input"' in frame


BEFORE, AFTER, COMMIT = Moment.BEFORE, Moment.AFTER, Moment.COMMIT

POINTS = {
    # admitting
    "transaction received": Point(Dispatcher, "admit", BEFORE),
    "admitted, not committed": Point(Inbox, "admit", COMMIT),
    "admitted, before the 200": Point(Inbox, "admit", AFTER),
    "after the 200, before its turn runs": Point(Appservice, "_transaction", Moment.ANSWERED),
    # asking
    "turn begins": Point(TurnRunner, "run", BEFORE),
    "before the conversation is created": Point(AppServer, "create_conversation", BEFORE),
    "conversation created, not stored": Point(AppServer, "create_conversation", AFTER),
    "conversation stored": Point(TurnStore, "set_conversation", AFTER),
    "before the turn's state is saved": Point(TurnStore, "run", BEFORE),
    "turn's state saved, not committed": Point(TurnStore, "run", COMMIT),
    "turn's state saved, input not sent": Point(TurnStore, "run", AFTER),
    "input sent": Point(KeeperClient, "send", AFTER, when=_is_input),
    "input accepted": Point(Follower, "_send", AFTER),
    # growing
    "first words": Point(Reply, "show", BEFORE),
    "before the first message is frozen": Point(Outbox, "freeze", BEFORE),
    "first message frozen, not committed": Point(Outbox, "freeze", COMMIT),
    "first message frozen, not sent": Point(Outbox, "freeze", AFTER),
    "first message sent, not confirmed": Point(Intent, "send", AFTER),
    "first message confirmed": Point(Outbox, "confirm", AFTER),
    "before an interim edit": Point(Intent, "send_interim", BEFORE),
    "after an interim edit": Point(Intent, "send_interim", AFTER, call=2),
    "some words later": Point(Reply, "show", AFTER, call=9),
    # ending
    "turn finished, before the end is frozen": Point(Reply, "freeze", BEFORE),
    "end frozen, not committed": Point(Outbox, "freeze", COMMIT, when=_completes),
    "end frozen, not sent": Point(Outbox, "freeze", AFTER, when=_completes),
    "end sent, not recorded": Point(Reply, "deliver", AFTER),
    "end recorded, not committed": Point(TurnStore, "finish", COMMIT),
    "end recorded, turn kept by the runtime": Point(TurnStore, "finish", AFTER),
    "turn forgotten by the runtime": Point(AppServer, "finish_turn", AFTER),
}


class Trap:
    """Counts the calls of one point and dies at the right one."""

    def __init__(self, name: str, point: Point, text: str | None) -> None:
        self._name = name
        self._point = point
        self._text = text
        self._armed = text is None
        self._calls = 0
        self._committing: ContextVar[bool] = ContextVar("committing", default=False)

    def set_up(self) -> None:
        """Wrap the point's method, and whatever else its moment needs."""
        point = self._point
        self._wrap(point.owner, point.method)
        if self._text is not None:
            self._listen()
        if point.moment is Moment.COMMIT:
            self._guard_commits()
        if point.moment is Moment.ANSWERED:
            self._hold_turns()

    def die(self) -> NoReturn:
        os.write(2, f"dying: {self._name}\n".encode())
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("still alive after SIGKILL")

    def _listen(self) -> None:
        # Wrapped last, so that it arms before the point's own wrapper counts.
        original = Dispatcher.admit

        async def admit(*args: Any) -> None:
            self._armed |= any(_says(event, self._text or "") for event in args[-1])
            await original(*args)

        Dispatcher.admit = admit  # pyright: ignore[reportAttributeAccessIssue]

    def _is_it(self, *args: object, **kwargs: object) -> bool:
        if not self._armed or not self._point.when(*args, **kwargs):
            return False
        self._calls += 1
        return self._calls == self._point.call

    def _wrap(self, owner: type, method: str) -> None:
        original = getattr(owner, method)

        async def call(*args: Any, **kwargs: Any) -> Any:
            if self._point.moment is Moment.ANSWERED:
                return self._answering(await original(*args, **kwargs))
            if not self._is_it(*args, **kwargs):
                return await original(*args, **kwargs)
            self._before()
            result = await original(*args, **kwargs)
            self.die()
            return result

        def call_plain(*args: Any, **kwargs: Any) -> Any:
            if not self._is_it(*args, **kwargs):
                return original(*args, **kwargs)
            self._before()
            result = original(*args, **kwargs)
            self.die()
            return result

        setattr(owner, method, call if inspect.iscoroutinefunction(original) else call_plain)

    def _before(self) -> None:
        if self._point.moment is Moment.BEFORE:
            self.die()
        self._committing.set(self._point.moment is Moment.COMMIT)

    def _guard_commits(self) -> None:
        original = Database.write

        async def write(database: Database, work: Callable[[Connection], Any]) -> Any:
            committing = self._committing.get()

            def last_words(connection: Connection) -> Any:
                result = work(connection)
                if committing:
                    self.die()
                return result

            return await original(database, last_words)

        Database.write = write  # type: ignore[method-assign]

    def _answering(self, response: web.Response) -> web.Response:
        if not self._is_it():
            return response
        trap = self

        class LastResponse(web.Response):
            async def write_eof(self, data: bytes = b"") -> None:
                await super().write_eof(data)
                trap.die()

        return LastResponse(body=response.body, content_type="application/json")

    def _hold_turns(self) -> None:
        original = TurnRunner.run

        async def hold(*args: Any, **kwargs: Any) -> None:
            if self._armed:
                await asyncio.Event().wait()
            await original(*args, **kwargs)

        TurnRunner.run = hold


def _says(event: Mapping[str, Any], text: str) -> bool:
    return event.get("sender", "").startswith("@crash") and text in str(event.get("content"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument("--die-at", choices=list(POINTS))
    armed = parser.add_mutually_exclusive_group()
    armed.add_argument("--when-told", metavar="TEXT")
    armed.add_argument("--at-once", action="store_true")
    options = parser.parse_args()
    if options.die_at is not None:
        if not options.at_once and options.when_told is None:
            parser.error("--die-at needs --when-told or --at-once")
        Trap(options.die_at, POINTS[options.die_at], options.when_told).set_up()
    asyncio.run(run(load_config(options.config)))


if __name__ == "__main__":
    main()
