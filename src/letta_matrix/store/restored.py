"""A database that was put back from a backup: what was forbidden since stays forbidden, and the
bridge is told from when to when it knows nothing."""

import json
import time
from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import Executable, or_, select, update

from letta_matrix.common.json_fields import mapping, parse_json
from letta_matrix.store.approvals import ApprovalStatus
from letta_matrix.store.database import Database
from letta_matrix.store.meta import Meta
from letta_matrix.store.portals import BLOCKED
from letta_matrix.store.rows import replacing
from letta_matrix.store.schema import approvals, portal_contacts, portals, room_settings, tokens

_KEY = "restored"
_BY = "letta-matrix restore"
_FOR_GOOD = approvals.c.status == ApprovalStatus.ALWAYS
_VALID = tokens.c.revoked_at.is_(None)


@dataclass(frozen=True, slots=True)
class Gap:
    """What happened from a backup until it was put back (Unix times), is not in the database."""

    since: float
    until: float


async def note_gap(database: Database, gap: Gap) -> None:
    """Remember that a database was put back. Raises StoreUnavailable."""
    told = json.dumps({"since": gap.since, "until": gap.until})
    await Meta(database).set(_KEY, told)


async def gap_of(meta: Meta) -> Gap | None:
    """The newest one, None for a database that was never put back. Raises StoreUnavailable."""
    told = mapping(parse_json(await meta.get(_KEY) or ""))
    since, until = told.get("since"), told.get("until")
    if not isinstance(since, int | float) or not isinstance(until, int | float):
        return None
    return Gap(since, until)


async def forbid_as_in(database: Database, present: Database) -> int:
    """Forbid whatever the `present` database forbids: revoked tokens, what had been allowed for
    good, contacts who want nothing or are blocked, silenced rooms. Returns how many tokens end by
    it; those that it does not know do. Raises StoreUnavailable."""
    valid = await present.values(select(tokens.c.token_id).where(_VALID))
    kept = await present.values(select(approvals.c.key).where(_FOR_GOOD))
    held = await present.rows(select(portals).where(portals.c.held))
    shut = or_(portal_contacts.c.stopped, portal_contacts.c.agent_id == BLOCKED)
    contacts = await present.rows(select(portal_contacts).where(shut))
    paused = await present.rows(select(room_settings).where(room_settings.c.paused))
    statements: list[Executable] = [_taken_back(kept)]
    # Also those that the backup does not know: learnt anew, they would not be held.
    for table, rows in ((portals, held), (portal_contacts, contacts), (room_settings, paused)):
        for row in rows:
            statements += replacing(table, dict(row))
    await database.execute(*statements)
    return await _end_tokens(database, valid)


async def forbid_unseen(database: Database) -> int:
    """Let nothing count that may have been taken back since, as nobody can tell: tokens, and what
    was allowed for good. Returns how many tokens end by it. Raises StoreUnavailable."""
    await database.execute(_taken_back(()))
    return await _end_tokens(database, ())


def _taken_back(kept: Collection[str]) -> Executable:
    values = {"status": str(ApprovalStatus.DENIED), "decided_by": _BY}
    return update(approvals).where(_FOR_GOOD, approvals.c.key.not_in(kept)).values(**values)


async def _end_tokens(database: Database, valid: Collection[str]) -> int:
    unknown = update(tokens).where(_VALID, tokens.c.token_id.not_in(valid))
    return await database.changed(unknown.values(revoked_at=time.time()))
