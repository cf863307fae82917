"""Whether a contact's message is asked at all, once it is its turn, and whether the answer may
go out."""

import asyncio
from collections.abc import Callable
from enum import Enum

import structlog

from letta_matrix.common.waiting import is_set
from letta_matrix.portals.day_budget import DayBudget, Spent
from letta_matrix.portals.policy import PortalPolicy
from letta_matrix.portals.quiet import until_open
from letta_matrix.store.portals import Portal
from letta_matrix.store.turns import Turn

log = structlog.get_logger()

_DAY = 86_400.0
"""Seconds for which the same budget is not told of again."""
_LOOK = 60.0
"""Seconds between looks at the homeserver's clock in quiet hours."""


class Passage(Enum):
    OPEN = "open"
    SILENT = "silent"  # nobody is to be answered
    GONE = "gone"  # the room is no portal any more, which is to be told
    SPENT = "spent"  # too many questions in a day, which is to be told


class PortalGate:
    """Goes by the policy as it is now, quiet hours and the day's `budget`. `now` is what time it
    is where messages are dated."""

    def __init__(self, policy: PortalPolicy, budget: DayBudget, now: Callable[[], float]) -> None:
        self._policy = policy
        self._budget = budget
        self._now = now
        self._told: dict[tuple[str, str], float] = {}

    def is_silent(self, turn: Turn) -> bool:
        """Whether a contact is not, or no longer, answered by the turn's agent."""
        portal = self._policy.portal(turn.room_id)
        if portal is None:
            # The bridge has given the room up since.
            return self._policy.bridge_at(turn.room_id, turn.sender) is not None
        return self._policy.is_silent(portal, turn.sender, turn.agent_id)

    async def passage(self, turn: Turn, cancelled: asyncio.Event) -> Passage:
        """What becomes of a message that was never asked; waits while hours are quiet, no longer
        than until it is `cancelled`."""
        while (left := self._quiet_for(turn)) > 0:
            if await is_set(cancelled, min(left, _LOOK)):
                return Passage.OPEN
        portal = self._policy.portal(turn.room_id)
        if self.is_silent(turn):
            return Passage.SILENT if portal is not None else Passage.GONE
        return await self._spent(turn, portal) if portal is not None else Passage.OPEN

    def _quiet_for(self, turn: Turn) -> float:
        """Seconds for which nobody is asked where the turn is from."""
        portal = self._policy.portal(turn.room_id)
        if portal is None:
            return 0.0
        return until_open(self._policy.bridges[portal.name].settings.quiet_hours, self._now())

    async def _spent(self, turn: Turn, portal: Portal) -> Passage:
        spent = await self._budget.ask(turn, portal)
        if spent is None:
            return Passage.OPEN
        log.warning("a contact's message is left unanswered: budget", bridge=portal.name)
        whose = portal.name, turn.sender if spent is Spent.CONTACT else ""
        is_told = self._now() - self._told.get(whose, 0.0) < _DAY
        self._told[whose] = self._told[whose] if is_told else self._now()
        return Passage.SILENT if is_told else Passage.SPENT
