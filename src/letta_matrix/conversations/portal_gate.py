"""Whether a contact's message is asked at all, once it is its turn, and whether the answer may
go out."""

import asyncio
from collections.abc import Callable
from enum import Enum

import structlog

from letta_matrix.common.waiting import is_set
from letta_matrix.portals.policy import PortalPolicy
from letta_matrix.portals.quiet import until_open
from letta_matrix.store.turns import Turn, TurnStore

log = structlog.get_logger()

_DAY = 86_400.0
_LOOK = 60.0
"""Seconds between looks at the homeserver's clock in quiet hours."""


class Passage(Enum):
    OPEN = "open"
    SILENT = "silent"  # nobody is to be answered
    SPENT = "spent"  # too many questions in a day, which is to be told


class PortalGate:
    """Goes by the policy as it is now, quiet hours and the day's budgets. `now` is what time it
    is where messages are dated."""

    def __init__(self, policy: PortalPolicy, turns: TurnStore, now: Callable[[], float]) -> None:
        self._policy = policy
        self._turns = turns
        self._now = now
        self._told: dict[tuple[str, str], float] = {}

    def is_silent(self, turn: Turn) -> bool:
        """Whether a contact is not, or no longer, answered by the turn's agent."""
        portal = self._policy.portal(turn.room_id)
        return portal is not None and self._policy.is_silent(portal, turn.sender, turn.agent_id)

    async def passage(self, turn: Turn, cancelled: asyncio.Event) -> Passage:
        """What becomes of a message that was never asked; waits while hours are quiet, no longer
        than until it is `cancelled`."""
        portal = self._policy.portal(turn.room_id)
        if portal is None:
            return Passage.OPEN
        settings = self._policy.bridges[portal.name].settings
        while (left := until_open(settings.quiet_hours, self._now())) > 0:
            if await is_set(cancelled, min(left, _LOOK)):
                return Passage.OPEN
        if self.is_silent(turn):
            return Passage.SILENT
        return await self._spent(turn, portal.name)

    async def _spent(self, turn: Turn, name: str) -> Passage:
        settings, since = self._policy.bridges[name].settings, self._now() - _DAY
        rooms = [one.room_id for one in self._policy.book.all() if one.name == name]
        for most, sender in ((settings.contact_per_day, turn.sender), (settings.per_day, "")):
            asked = await self._turns.asked_since(since, rooms, sender=sender) if most else 0
            if most and asked >= most:
                log.warning("a contact's message is left unanswered: budget", bridge=name)
                is_told = self._now() - self._told.get((name, sender), 0.0) < _DAY
                self._told[name, sender] = self._told[name, sender] if is_told else self._now()
                return Passage.SILENT if is_told else Passage.SPENT
        return Passage.OPEN
