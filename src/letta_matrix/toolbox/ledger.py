"""Runs what changes something: once for each transaction, and noted in the audit log."""

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from weakref import WeakValueDictionary

import structlog

from letta_matrix.access.faults import Fault, ToolError
from letta_matrix.common.tasks import Tasks
from letta_matrix.store.audit import AuditEntry, AuditStore
from letta_matrix.store.database import StoreUnavailable
from letta_matrix.toolbox.notes import Notes
from letta_matrix.toolbox.tool import Result

log = structlog.get_logger()

OK = "ok"
"""The outcome of a call that went well; those of others are kinds of Fault, or this:"""

CANCELLED = "cancelled"
"""The outcome of a call whose caller went away, or that the end of the process cut short."""

_GRACE = 1.0
"""Seconds that calls have to end at the end of the process, and then to clean up."""

_ASIDE = 0.005
"""Seconds by which the store comes after what callers wait for: its thread would take 0.5 ms
(measured) from the answer on its way out."""

_BESIDE = 0.1
"""Seconds that a call of no transaction has before it is noted that it runs: one that is over
sooner is noted once."""

_STOPPING = "The bridge is stopping. Try again in a minute."

_BROKEN = "The call failed, by a fault of the bridge; its log has the reason."

Work = Callable[[bool], Awaitable[Result]]
"""Does it; told whether an earlier try may have got somewhere. Raises ToolError."""

Mirror = Callable[[AuditEntry], None]

_Beginning = asyncio.Task[tuple[AuditEntry, bool]]


@dataclass(frozen=True, slots=True)
class _Call:
    entry: AuditEntry
    work: Work
    waits: bool
    notes: Notes | None
    told: asyncio.Future[Result]

    def tell(self, outcome: Result | Exception) -> None:
        """Tell the caller, unless it is gone or knows already."""
        if self.told.done():
            return
        if isinstance(outcome, Exception):
            self.told.set_exception(outcome)
        else:
            self.told.set_result(outcome)


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
        self._calls: dict[asyncio.Task[None], _Call] = {}
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
        call = _Call(entry, work, waits, notes, asyncio.get_running_loop().create_future())
        task = self._running.start(self._carry_out(call))
        self._calls[task] = call
        task.add_done_callback(self._calls.pop)
        try:
            return await call.told
        except asyncio.CancelledError:
            if waits:
                task.cancel()
            raise

    async def close(self) -> None:
        """Take no more calls; end those that wait for somebody, wait a little until the others
        have ended, cut the rest short, and note them all. Takes twice _GRACE at most."""
        self._closed = True
        _cancel(task for task, call in self._calls.items() if call.waits)
        for _ in range(2):
            # The second time it cuts short how a call that was cancelled cleans up.
            if self._calls:
                await asyncio.wait(self._calls, timeout=_GRACE)
                _cancel(self._calls)
        while self._running:
            await asyncio.wait(self._running)

    async def _carry_out(self, call: _Call) -> None:
        try:
            async with self._door(call.entry):
                await self._once(call)
        except asyncio.CancelledError:
            if call.waits:
                # A runtime that is told nothing asks again after the start.
                call.told.cancel()
            call.tell(ToolError(_STOPPING, Fault.UNAVAILABLE))
            raise
        except (ToolError, StoreUnavailable) as error:
            call.tell(error)
        except Exception as error:
            principal, tool = call.entry.principal, call.entry.tool
            log.error("a call failed", principal=principal, tool=tool, exc_info=error)
            call.tell(ToolError(_BROKEN, Fault.FAILED))

    def _door(self, entry: AuditEntry) -> asyncio.Lock | nullcontext[None]:
        """What calls of one transaction go through one by one."""
        if entry.transaction_id is None:
            return nullcontext()
        return self._doors.setdefault((entry.principal, entry.transaction_id), asyncio.Lock())

    async def _once(self, call: _Call) -> None:
        entry, notes = call.entry, call.notes
        over: asyncio.Future[AuditEntry] = asyncio.get_running_loop().create_future()
        beginning = asyncio.create_task(self._begin(entry, over))
        again = False
        if entry.transaction_id is not None:
            known, is_new = await beginning
            _check_same(entry, known)
            if known.outcome == OK and known.result is not None:
                call.tell(known.result)
                return
            again = not is_new
            if notes is not None:
                notes.begin(known)
        outcome: str = CANCELLED
        result: Result = {}
        try:
            result = await call.work(again)
            outcome = OK
            # Told before it is noted: if that fails, a retry finds what was done.
            call.tell(result)
        except ToolError as error:
            outcome = error.fault
            call.tell(error)
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
            await asyncio.shield(self._running.start(self._end(beginning, over, ended)))

    async def _begin(
        self, entry: AuditEntry, over: asyncio.Future[AuditEntry]
    ) -> tuple[AuditEntry, bool]:
        if entry.transaction_id is None:
            await asyncio.wait([over], timeout=_BESIDE)
        return await self._store.begin(over.result() if over.done() else entry)

    async def _end(
        self, beginning: _Beginning, over: asyncio.Future[AuditEntry], ended: AuditEntry
    ) -> None:
        await asyncio.sleep(_ASIDE)
        over.set_result(ended)
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
        if ended.transaction_id is None and known.outcome is not None:
            return known
        await self._store.end(
            known.seq,
            str(ended.outcome),
            room_id=ended.room_id,
            event_id=ended.event_id,
            result=ended.result,
        )
        return replace(ended, seq=known.seq)


def fingerprint(arguments: Mapping[str, object]) -> str:
    """Tells the arguments of one call from those of another."""
    text = json.dumps(arguments, sort_keys=True, ensure_ascii=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


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


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
