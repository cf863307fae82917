"""How much agents may send to other networks by tools: each such message counts as one that is
asked does."""

import asyncio
import time
from collections import deque

from letta_matrix.access.faults import Fault, ToolError
from letta_matrix.common.parts import part
from letta_matrix.config import PortalSettings
from letta_matrix.portals.policy import PortalPolicy
from letta_matrix.store.audit import AuditStore
from letta_matrix.store.portals import Portal
from letta_matrix.store.turns import TurnStore

TEXT, PICTURE = "sms_send", "portal_send_image"
"""The tools that send something."""

_DAY = 86_400.0
_MOST = 10_000
"""Messages of this process that are kept in mind."""


@part
class PortalBudget:
    """One for all tools. Whoever sends is the only one `sending`: what is under way counts."""

    _policy: PortalPolicy
    _turns: TurnStore
    _audit: AuditStore

    def __post_init__(self) -> None:
        self.sending = asyncio.Lock()
        self._began = time.time()
        self._sent: deque[tuple[float, str]] = deque(maxlen=_MOST)

    async def check(self, settings: PortalSettings, portal: Portal | None) -> None:
        """Raises ToolError where a day's messages of a bridge, or with a contact (whose `portal`
        may not be there yet), are used up."""
        every = [one.room_id for one in self._policy.book.all() if one.name == settings.name]
        here = [portal.room_id] if portal is not None else []
        for most, rooms in ((settings.contact_per_day, here), (settings.per_day, every)):
            if most and rooms and await self._used(rooms) >= most:
                text = "The number of messages in a day is used up; try again tomorrow."
                raise ToolError(text, Fault.RATE_LIMITED)

    def note(self, room_id: str) -> None:
        """One is sent now, whatever becomes of it: some of it may go out."""
        self._sent.append((time.time(), room_id))

    async def _used(self, rooms: list[str]) -> int:
        since = time.time() - _DAY
        used = await self._turns.asked_since(self._policy.now() - _DAY, rooms)
        for tool in (TEXT, PICTURE):
            used += await self._audit.calls_since(since, tool, rooms, self._began)
        return used + sum(room in rooms and at > since for at, room in self._sent)
