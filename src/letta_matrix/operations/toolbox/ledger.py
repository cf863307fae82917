"""Runs what changes something: once for each transaction, and noted in the audit log."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import nullcontext
from dataclasses import replace
from weakref import WeakValueDictionary

import structlog

from letta_matrix.access.faults import Fault, ToolError
from letta_matrix.common.tasks import Tasks
from letta_matrix.operations.toolbox.notes import Notes
from letta_matrix.operations.toolbox.tool import Result
from letta_matrix.store.audit import AuditEntry, AuditStore
from letta_matrix.store.database import StoreUnavailable

log = structlog.get_logger()

OK = "ok"
"""The outcome of a call that went well; those of others are kinds of Fault, or this:"""

CANCELLED = "cancelled"
"""The outcome of a call whose caller went away, or that the end of the process cut short."""

_GRACE = 1.0
"""Seconds that calls have to end at the end of the process, and then to clean up."""

_ASIDE = 0.005
"""Seconds by which the store comes after what callers wait for: its thread would take 0.5 ms
(measured) from the request on its way out, and from the answer."""

_STOPPING = "The bridge is stopping. Try again in a minute."

_BROKEN = "The call failed, by a fault of the bridge; its log has the reason."

Work = Callable[[bool], Awaitable[Result]]
"""Does it; told whether an earlier try may have got somewhere. Raises ToolError."""

Mirror = Callable[[AuditEntry], None]

_Told = asyncio.Future[Result]
_Beginning = asyncio.Task[tuple[AuditEntry, bool]]


class Ledger:
    """Notes each call before or while it runs, and how it ended. `mirror` hears of ended ones.

    A call with a `transaction_id` has its result stored: the same call, come again, gets that
    and does nothing more. Work that has begun is done to its end though the caller goes away,
    so that a retry finds its result.
    """

    def __init__(self, store: AuditStore, mirror: Mirror = lambda _: None) -> None:
        self._store = store
        self.mirror = mirror
        self._running = Tasks()
        self._calls: set[asyncio.Task[None]] = set()
        self._waiting: set[asyncio.Task[None]] = set()
        self._doors: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()
        self._closed = False

    async def run(
        self,
        entry: AuditEntry,
        work: Work,
        *,
        waits: bool = False,
        notes: Notes | None = None,
    ) -> Result:
        """Do `work`; with `waits` it is for somebody's answer, and ends with its caller. `notes`
        learns what an earlier try has noted.

        Raises:
            ToolError: as `work` does; also for a `transaction_id` used for something else, and
                when the process ends.
            CancelledError: the process ends and the call `waits`; it may come again then.
            StoreUnavailable: the transaction cannot be noted, so nothing was done.
        """
        if self._closed:
            raise ToolError(_STOPPING, Fault.UNAVAILABLE)
        told: _Told = asyncio.get_running_loop().create_future()
        task = self._running.start(self._carry_out(entry, work, told, notes, waits=waits))
        for group in (self._calls, self._waiting) if waits else (self._calls,):
            group.add(task)
            task.add_done_callback(group.discard)
        try:
            return await told
        except asyncio.CancelledError:
            if waits:
                task.cancel()
            raise

    async def close(self) -> None:
        """Take no more calls; end those that wait for somebody, wait a little until the others
        have ended, cut the rest short, and note them all. Takes twice _GRACE at most."""
        self._closed = True
        _cancel(self._waiting)
        for _ in range(2):
            # The second time it cuts short how a call that was cancelled cleans up.
            if self._calls:
                await asyncio.wait(self._calls, timeout=_GRACE)
                _cancel(self._calls)
        while self._running:
            await asyncio.wait(self._running)

    async def _carry_out(
        self,
        entry: AuditEntry,
        work: Work,
        told: _Told,
        notes: Notes | None,
        *,
        waits: bool,
    ) -> None:
        try:
            async with self._door(entry):
                await self._once(entry, work, told, notes)
        except asyncio.CancelledError:
            if waits:
                # A runtime that is told nothing asks again after the start.
                told.cancel()
            _tell(told, ToolError(_STOPPING, Fault.UNAVAILABLE))
            raise
        except (ToolError, StoreUnavailable) as error:
            _tell(told, error)
        except Exception as error:
            log.error("a call failed", principal=entry.principal, tool=entry.tool, exc_info=error)
            _tell(told, ToolError(_BROKEN, Fault.FAILED))
        except BaseException as error:
            # The process ends, and whoever waits with it.
            _tell(told, error)
            raise

    def _door(self, entry: AuditEntry) -> asyncio.Lock | nullcontext[None]:
        """What calls of one transaction go through one by one."""
        if entry.transaction_id is None:
            return nullcontext()
        return self._doors.setdefault((entry.principal, entry.transaction_id), asyncio.Lock())

    async def _once(self, entry: AuditEntry, work: Work, told: _Told, notes: Notes | None) -> None:
        beginning = asyncio.create_task(self._begin(entry))
        again = False
        if entry.transaction_id is not None:
            known, is_new = await beginning
            _check_same(entry, known)
            if known.outcome == OK and known.result is not None:
                _tell(told, known.result)
                return
            again = not is_new
            if notes is not None:
                notes.begin(known)
        outcome: str = CANCELLED
        result: Result = {}
        try:
            result = await work(again)
            outcome = OK
            # Told before it is noted: if that fails, a retry finds what was done.
            _tell(told, result)
        except ToolError as error:
            outcome = error.fault
            _tell(told, error)
        except Exception:
            outcome = Fault.FAILED
            raise
        finally:
            kept = dict(result) if outcome == OK else notes.noted if notes is not None else None
            ended = replace(
                entry,
                outcome=outcome,
                room_id=_text(result.get("room_id")),
                event_id=_text(result.get("event_id")),
                result=kept if entry.transaction_id is not None else None,
            )
            await asyncio.shield(self._running.start(self._end(beginning, ended)))

    async def _begin(self, entry: AuditEntry) -> tuple[AuditEntry, bool]:
        # A call of no transaction begins beside its work: the homeserver's answer takes longer
        # than ours to disk.
        if entry.transaction_id is None:
            await asyncio.sleep(_ASIDE)
        return await self._store.begin(entry)

    async def _end(self, beginning: _Beginning, ended: AuditEntry) -> None:
        await asyncio.sleep(_ASIDE)
        try:
            ended = await self._note(beginning, ended)
        except StoreUnavailable as error:
            log.error(
                "a call is missing in the audit log",
                principal=ended.principal,
                tool=ended.tool,
                outcome=ended.outcome,
                reason=str(error),
            )
        self.mirror(ended)

    async def _note(self, beginning: _Beginning, ended: AuditEntry) -> AuditEntry:
        try:
            known, _ = await beginning
        except StoreUnavailable:
            # Another try, now that it is over: as a whole.
            return (await self._store.begin(ended))[0]
        await self._store.end(
            known.seq,
            str(ended.outcome),
            room_id=ended.room_id,
            event_id=ended.event_id,
            result=ended.result,
        )
        return replace(ended, seq=known.seq)


def _check_same(entry: AuditEntry, known: AuditEntry) -> None:
    if (known.tool, known.fingerprint) != (entry.tool, entry.fingerprint):
        raise ToolError(
            f"`transaction_id` {entry.transaction_id!r} was used for another call of "
            f"{known.tool}; give each call one of its own.",
            Fault.CONFLICT,
        )


def _cancel(tasks: Iterable[asyncio.Task[None]]) -> None:
    for task in list(tasks):
        task.cancel()


def _tell(told: _Told, outcome: Result | BaseException) -> None:
    """Tell the caller, unless it is gone or knows already."""
    if told.done():
        return
    if isinstance(outcome, BaseException):
        told.set_exception(outcome)
    else:
        told.set_result(outcome)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
