"""Transactions that wait for the database at the same time, committed together."""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import Connection

from letta_matrix.common.measures import Spans
from letta_matrix.store.faults import is_fault

Result = TypeVar("Result")

_MOST = 64
"""Transactions in one commit: none is to wait long for those before it."""
_SAVEPOINT = "SAVEPOINT one"
_ONE_BY_ONE = ("RELEASE one", _SAVEPOINT)
_ALL_AT_ONCE = ("; ".join(_ONE_BY_ONE),)
"""To a server and back takes its time."""
_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5)


@dataclass(slots=True)
class _Waiting:
    work: Callable[[Connection], Any]
    future: asyncio.Future[Any]
    result: Any = None
    error: BaseException | None = None


class Commits:
    """Does work in the one `thread` of a database, in order, each all or nothing.

    A commit waits for the disk, so what has come meanwhile shares the next one, a savepoint each:
    what fails takes nothing else with it. Only a fault of the database itself fails all of them,
    which `begin` raises; `begin` is a transaction that commits at its end. `spans` are those of
    commits, with the work in them; `transactions` counts what they were for.
    """

    def __init__(
        self, thread: Executor, begin: Callable[[], AbstractContextManager[Connection]]
    ) -> None:
        self._thread = thread
        self._begin = begin
        self._waiting: deque[_Waiting] = deque()
        self._is_called = self._is_closed = False
        self.spans = Spans(*_BOUNDS)
        self.transactions = 0

    async def add(self, work: Callable[[Connection], Result]) -> Result:
        """The result of `work` once it is committed; raises what it or the commit raises, and
        RuntimeError once it is closed."""
        if self._is_closed:
            raise RuntimeError("the database is closed")
        loop = asyncio.get_running_loop()
        one = _Waiting(work, loop.create_future())
        self._waiting.append(one)
        if not self._is_called:
            self._call(loop)
        return await one.future

    async def close(self) -> None:
        """Take nothing any more; returns when what has come is in the thread's hands."""
        self._is_closed = True
        if waiting := [one.future for one in self._waiting.copy()]:
            # More than one commit takes would be asked for behind whatever ends the thread.
            await asyncio.wait(waiting)

    def _call(self, loop: asyncio.AbstractEventLoop) -> None:
        self._is_called = True
        self._thread.submit(self._commit, loop)

    def _commit(self, loop: asyncio.AbstractEventLoop) -> None:
        # First: who comes from now on calls anew.
        self._is_called = False
        batch: list[_Waiting] = []
        while self._waiting and len(batch) < _MOST:
            one = self._waiting.popleft()
            if not one.future.cancelled():
                batch.append(one)
        if not batch:
            # An earlier call has taken all; an empty commit would say that the disk has room.
            return
        try:
            if self._waiting:
                self._call(loop)
            # The thread has no event loop, whose clock it could go by.
            started = time.monotonic()
            with self._begin() as connection:
                self._work(connection, batch)
            self.spans.add(time.monotonic() - started)
            self.transactions += len(batch)
        except BaseException as error:  # noqa: BLE001 - told to all who wait
            for one in batch:
                one.error = one.error or error
        loop.call_soon_threadsafe(_tell, batch)

    def _work(self, connection: Connection, batch: list[_Waiting]) -> None:
        if len(batch) == 1:
            batch[0].result = batch[0].work(connection)
            return
        steps = _ALL_AT_ONCE if connection.dialect.name == "postgresql" else _ONE_BY_ONE
        connection.exec_driver_sql(_SAVEPOINT)
        for one in batch:
            try:
                one.result = one.work(connection)
            except Exception as error:
                if is_fault(error):
                    raise
                one.error = error
                connection.exec_driver_sql("ROLLBACK TO one")
            for step in steps:
                connection.exec_driver_sql(step)


def _tell(batch: list[_Waiting]) -> None:
    for one in batch:
        if one.future.cancelled():
            continue
        if one.error is not None:
            one.future.set_exception(one.error)
        else:
            one.future.set_result(one.result)
