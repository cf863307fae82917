"""STOP of people on other networks, which holds from when it is heard, and START that no turn will
honour: taken in silence, as somebody may be let answer them later."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import structlog

from letta_matrix.common.parts import part
from letta_matrix.matrix.events import Event
from letta_matrix.portals.keywords import Keyword, keyword_in
from letta_matrix.portals.policy import PortalPolicy
from letta_matrix.store.portals import Contact, Portal, PortalBook
from letta_matrix.store.rooms import Rooms

log = structlog.get_logger()

_EARLIER = 86_400.0
"""Seconds: what was said so long before one of us came in was said to somebody else, and comes as
the bridge tells what was said before."""


@part
class OptOuts:
    """Remembers them in the policy's book."""

    _policy: PortalPolicy
    _rooms: Rooms

    async def heard(self, event: Mapping[str, Any]) -> None:
        """Hear of an event, each time before it is routed."""
        said, room_id, sender = Event(event), event.get("room_id"), event.get("sender")
        portal = self._policy.portal(room_id) if isinstance(room_id, str) else None
        if portal is None or not portal.direct or event.get("type") != "m.room.message":
            return
        body = said.content.get("body")
        # The body of a file may be its name, and notices are said by programs.
        is_said = said.content.get("msgtype") in ("m.text", "m.emote") and not said.is_edit
        keyword = keyword_in(body) if isinstance(body, str) and is_said else None
        if keyword not in (Keyword.STOP, Keyword.START) or not isinstance(sender, str):
            return
        if not self._policy.is_contact(portal, sender):
            return
        at, began = said.sent_at or time.time(), self._rooms.began(portal.room_id)
        if at < began - _EARLIER:
            return
        if keyword is Keyword.STOP:
            await self._stop(portal, sender, at)
        elif at < began or self._policy.agent_for(portal, sender) is None:
            names = self._policy.names_of(portal.name, sender)
            await let_go_on(self._policy.book, portal.name, names, at)

    async def _stop(self, portal: Portal, sender: str, at: float) -> None:
        book, key = self._policy.book, self._policy.key_of(portal.name, sender)
        known = book.contact(portal.name, key) or Contact(portal.name, key)
        # A transaction that comes again brings it again, and perhaps not the START behind it.
        is_over = at < known.told_at and known.word != Keyword.HELP
        if not is_over and not self._policy.decided(portal.name, sender).stopped:
            log.info("a contact wants no messages", bridge=portal.name)
            await book.decide(replace(known, stopped=True, word="", told_at=at))


async def let_go_on(book: PortalBook, name: str, names: Iterable[str], at: float) -> None:
    """Whoever is called so at a bridge may get messages again, as they said `at` (Unix time)."""
    for one in names:
        if (known := book.contact(name, one)) is not None and known.stopped:
            await book.decide(replace(known, stopped=False, told_at=max(at, known.told_at)))
