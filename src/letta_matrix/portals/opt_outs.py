"""STOP of people on other networks, which holds from when it is heard, and START of whom no agent
answers: taken in silence, as somebody may be let answer them later."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import structlog

from letta_matrix.common.parts import part
from letta_matrix.matrix.events import Event
from letta_matrix.portals.keywords import Keyword, keyword_in
from letta_matrix.portals.policy import PortalPolicy
from letta_matrix.store.portals import Contact, PortalBook

log = structlog.get_logger()


@part
class OptOuts:
    """Remembers them in the policy's book."""

    _policy: PortalPolicy

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
        book = self._policy.book
        if keyword is Keyword.START:
            if self._policy.agent_for(portal, sender) is None:
                await let_go_on(book, portal.name, self._policy.names_of(portal.name, sender))
        elif not self._policy.decided(portal.name, sender).stopped:
            log.info("a contact wants no messages", bridge=portal.name)
            key = self._policy.key_of(portal.name, sender)
            known = book.contact(portal.name, key) or Contact(portal.name, key)
            await book.decide(replace(known, stopped=True, word=""))


async def let_go_on(book: PortalBook, name: str, names: Iterable[str]) -> None:
    """Whoever is called so at a bridge may get messages again."""
    for one in names:
        if (known := book.contact(name, one)) is not None and known.stopped:
            await book.decide(replace(known, stopped=False))
