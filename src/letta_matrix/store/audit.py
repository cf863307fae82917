"""The log of what was done with tools: who, as whom, what, where."""

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

from sqlalchemy import Connection, select
from sqlalchemy.exc import IntegrityError

from letta_matrix.store.database import Database
from letta_matrix.store.pruning import prune_audit
from letta_matrix.store.rows import record_of, row_by, row_of
from letta_matrix.store.schema import audit

_NEW, _CALL = audit.insert(), row_by(audit.c.seq)


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One call. `outcome` is "ok", a kind of fault or "cancelled", None while it runs or if it was
    killed; `result` is kept only of calls with a `transaction_id`, and before they went well
    holds what a retry needs. `at` is a Unix time."""

    principal: str
    user_id: str
    door: str
    tool: str
    fingerprint: str
    at: float
    transaction_id: str | None = None
    room_id: str | None = None
    event_id: str | None = None
    outcome: str | None = None
    result: dict[str, object] | None = None
    seq: int = 0


class AuditStore:
    """The `audit` table."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def begin(self, entry: AuditEntry) -> tuple[AuditEntry, bool]:
        """Store a call that begins; with the entry as stored, whether it is new. One with the
        same principal and `transaction_id` as before is not: then it is the earlier one."""
        values = row_of(entry, "seq")

        def store(db: Connection) -> tuple[AuditEntry, bool]:
            if entry.transaction_id is not None and (known := _known(db, entry)) is not None:
                return known, False
            key = db.execute(_NEW, values).inserted_primary_key
            return replace(entry, seq=int(key[0]) if key else 0), True

        try:
            return await self._database.write(store)
        except IntegrityError:
            # Two at once: the other one was first.
            return await self._database.write(store)

    async def note(self, seq: int, progress: dict[str, object]) -> None:
        """What a retry of a call needs that has begun."""
        await self._database.execute((_CALL, {"of": seq, "result": progress}))

    async def end(
        self,
        seq: int,
        outcome: str,
        *,
        room_id: str | None = None,
        event_id: str | None = None,
        result: dict[str, object] | None = None,
    ) -> None:
        """How a call ended."""
        values = {"outcome": outcome, "room_id": room_id, "event_id": event_id, "result": result}
        await self._database.execute((_CALL, {"of": seq, **values}))

    async def newest(self, limit: int, *, before: int | None = None) -> list[AuditEntry]:
        """The newest entries, newest first; only those older than the entry `before` if given."""
        query = select(audit).order_by(audit.c.seq.desc()).limit(limit)
        if before is not None:
            query = query.where(audit.c.seq < before)
        return await self._database.records(AuditEntry, query)

    async def prune(self, days: float) -> None:
        """Forget what is older. Raises StoreUnavailable."""
        await prune_audit(self._database, time.time() - days * 86_400)


def _known(db: Connection, entry: AuditEntry) -> AuditEntry | None:
    same = audit.c.principal == entry.principal
    same &= audit.c.transaction_id == entry.transaction_id
    row = db.execute(select(audit).where(same)).mappings().first()
    return None if row is None else record_of(AuditEntry, row)


def fingerprint(arguments: Mapping[str, object]) -> str:
    """Tells the arguments of one call from those of another."""
    text = json.dumps(arguments, sort_keys=True, ensure_ascii=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]
