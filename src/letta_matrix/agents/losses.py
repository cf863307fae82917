"""Tells of what we remembered and the homeserver no longer had."""

import time
from collections import Counter
from collections.abc import Callable
from enum import StrEnum

import structlog

from letta_matrix.common import clock
from letta_matrix.store.audit import AuditEntry, AuditStore

log = structlog.get_logger()

_TOLD_FOR = 1800.0
_BRIDGE = "bridge"
"""Whose doing it is, and through which door, in the audit log."""


class Loss(StrEnum):
    """What was done about a loss, as the audit log calls it."""

    ACCOUNT_MADE = "accounts.make_anew"
    ACCOUNT_RENAMED = "accounts.rename"
    ROOM_MADE = "rooms.make_anew"
    ROOM_FOUND = "rooms.find"
    MEMBERSHIP_FOUND = "memberships.find"
    MEMBERSHIP_FORGOTTEN = "memberships.forget"


_WORDS = {
    Loss.ACCOUNT_MADE: "accounts made anew",
    Loss.ACCOUNT_RENAMED: "accounts of the new server name",
    Loss.ROOM_MADE: "rooms made anew",
    Loss.ROOM_FOUND: "rooms found by their aliases",
    Loss.MEMBERSHIP_FOUND: "rooms found that agents are in",
    Loss.MEMBERSHIP_FORGOTTEN: "rooms forgotten that agents were in",
}


class Losses:
    """Notes each in the log and in the audit log; `trouble` tells of them for half an hour.
    `mirror` hears of what the audit log has."""

    def __init__(self, audit: AuditStore, mirror: Callable[[AuditEntry], None]) -> None:
        self._audit = audit
        self._mirror = mirror
        self._recent: list[tuple[float, Loss]] = []

    @property
    def trouble(self) -> str:
        """What operators should know, "" for nothing."""
        self._recent = [one for one in self._recent if clock.now() - one[0] < _TOLD_FOR]
        if not self._recent:
            return ""
        counted = Counter(loss for _, loss in self._recent)
        what = ", ".join(f"{_WORDS[loss]}: {count}" for loss, count in counted.items())
        return (
            "lately set up again on the homeserver, as it was gone (a purge, a backup, another "
            f"server?) or by `letta-matrix forget`: {what}; the audit log says which"
        )

    async def note(self, loss: Loss, user_id: str, room_id: str | None = None) -> None:
        """Something was set up again or forgotten, of one of our users. Raises
        StoreUnavailable."""
        log.warning("set up again on the homeserver", what=str(loss), user=user_id, room=room_id)
        self._recent.append((clock.now(), loss))
        entry = AuditEntry(
            principal=_BRIDGE,
            user_id=user_id,
            door=_BRIDGE,
            tool=str(loss),
            fingerprint="",
            at=time.time(),
            room_id=room_id,
            outcome="ok",
        )
        entry, _ = await self._audit.begin(entry)
        self._mirror(entry)
