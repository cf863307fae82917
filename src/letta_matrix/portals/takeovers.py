"""People who write in a portal themselves, on their phone or in a client: agents are silent there
for a while."""

from collections import defaultdict, deque
from collections.abc import Mapping
from typing import Any

import structlog

from letta_matrix.common.identifiers import is_ours
from letta_matrix.common.parts import part
from letta_matrix.matrix.events import Event
from letta_matrix.portals.policy import PortalPolicy
from letta_matrix.store.portals import Portal

log = structlog.get_logger()

_REMEMBERED = 20
"""Messages of ours in each portal that a bridge may show us again as what was typed elsewhere."""


@part
class Takeovers:
    """Remembers them in the policy's book."""

    _policy: PortalPolicy
    _bot_user_id: str

    def __post_init__(self) -> None:
        self._said: defaultdict[str, deque[str]] = defaultdict(_remembered)

    async def heard(self, event: Mapping[str, Any]) -> None:
        """Hear of an event, our own ones too."""
        said, room_id = Event(event), event.get("room_id")
        portal = self._policy.portal(room_id) if isinstance(room_id, str) else None
        if portal is None or event.get("type") != "m.room.message":
            return
        settings = self._policy.bridges[portal.name].settings
        if settings.takeover <= 0:
            return
        sender, body = str(event.get("sender")), said.content.get("body")
        if is_ours(sender, self._bot_user_id):
            self._said[portal.room_id].append(str(body))
        elif self._is_by_hand(portal, sender, str(body), said.content):
            now = self._policy.now()
            until = min(said.sent_at or now, now) + settings.takeover
            if until > now:
                log.info("a person writes in a portal", room=portal.room_id, sender=sender)
                await self._policy.book.typed(portal.room_id, until)

    def _is_by_hand(
        self, portal: Portal, sender: str, body: str, content: Mapping[str, Any]
    ) -> bool:
        if self._policy.bridge_of(sender) is not None:
            # A bridge that was restarted may not know any more that it was us.
            is_echo = body in self._said[portal.room_id]
            is_known = bool(self._policy.contacts_in(portal))
            return is_known and not is_echo and self._policy.is_line_itself(portal, sender)
        # Commands, to the bridge too, are no talk.
        return content.get("msgtype") != "m.notice" and not body.startswith("!")


def _remembered() -> deque[str]:
    return deque(maxlen=_REMEMBERED)
