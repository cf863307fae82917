"""Runs what changes something: once for each transaction, and noted in the audit log."""

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from weakref import WeakValueDictionary

import structlog

from letta_matrix.store.audit import AuditEntry, AuditStore
from letta_matrix.store.database import StoreUnavailable
from letta_matrix.toolbox.faults import Fault, ToolError
from letta_matrix.toolbox.tool import Result

log = structlog.get_logger()

Work = Callable[[bool], Awaitable[Result]]
"""Does it; told whether an earlier try may have got somewhere. Raises ToolError."""

Mirror = Callable[[AuditEntry], None]


class Ledger:
    """Notes each call before or while it runs, and how it ended. `mirror` hears of ended ones.

    A call with a `transaction_id` has its result stored: the same call, come again, gets that
    and does nothing more.
    """

    def __init__(self, store: AuditStore, mirror: Mirror = lambda _: None) -> None:
        self._store = store
        self.mirror = mirror
        self._background: set[asyncio.Task[None]] = set()
        self._doors: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()

    async def run(self, entry: AuditEntry, work: Work) -> Result:
        """Do `work`. Raises ToolError, also for a `transaction_id` used for something else."""
        if entry.transaction_id is None:
            return await self._noted(entry, work)
        door = self._doors.setdefault((entry.principal, entry.transaction_id), asyncio.Lock())
        async with door:
            return await self._once(entry, work)

    async def close(self) -> None:
        """Wait until what ended is noted."""
        await asyncio.gather(*self._background, return_exceptions=True)

    async def _noted(self, entry: AuditEntry, work: Work) -> Result:
        # Beside the work: the homeserver's answer takes longer than ours to disk.
        beginning = asyncio.create_task(self._store.begin(entry))
        outcome: str = Fault.FAILED
        result: Result = {}
        try:
            result = await work(False)
            outcome = "ok"
        except ToolError as error:
            outcome = error.fault
            raise
        finally:
            task = asyncio.create_task(self._end_later(beginning, entry, outcome, result))
            self._background.add(task)
            task.add_done_callback(self._background.discard)
        return result

    async def _once(self, entry: AuditEntry, work: Work) -> Result:
        known, is_new = await self._store.begin(entry)
        if (known.tool, known.fingerprint) != (entry.tool, entry.fingerprint):
            raise ToolError(
                f"`transaction_id` {entry.transaction_id!r} was used for another call of "
                f"{known.tool}; give each call one of its own.",
                Fault.CONFLICT,
            )
        if known.outcome == "ok" and known.result is not None:
            return known.result
        try:
            result = await work(not is_new)
        except ToolError as error:
            await self._end(known, error.fault, {})
            raise
        await self._end(known, "ok", result)
        return result

    async def _end_later(
        self,
        beginning: asyncio.Task[tuple[AuditEntry, bool]],
        entry: AuditEntry,
        outcome: str,
        result: Result,
    ) -> None:
        try:
            known, _ = await beginning
            await self._end(known, outcome, result)
        except StoreUnavailable as error:
            log.error(
                "a call is missing in the audit log",
                principal=entry.principal,
                tool=entry.tool,
                outcome=outcome,
                reason=str(error),
            )

    async def _end(self, entry: AuditEntry, outcome: str, result: Result) -> None:
        ended = replace(
            entry,
            outcome=outcome,
            room_id=_text(result.get("room_id")),
            event_id=_text(result.get("event_id")),
        )
        kept = dict(result) if entry.transaction_id is not None and outcome == "ok" else None
        await self._store.end(
            entry.seq, outcome, room_id=ended.room_id, event_id=ended.event_id, result=kept
        )
        self.mirror(ended)


def fingerprint(arguments: Mapping[str, object]) -> str:
    """Tells the arguments of one call from those of another."""
    text = json.dumps(arguments, sort_keys=True, ensure_ascii=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
