"""What of a day's budgets is used up: questions of contacts that agents were asked, and texts and
pictures that agents have sent by tools."""

import asyncio
from collections.abc import Callable, Collection
from enum import Enum

from letta_matrix.portals.policy import PortalPolicy
from letta_matrix.store.portals import Portal
from letta_matrix.store.sent import Sent, SentBook
from letta_matrix.store.turns import Turn, TurnStatus, TurnStore

TEXT, PICTURE = "sms_send", "portal_send_image"
"""The tools by which agents send something."""

_DAY = 86_400.0


class Spent(Enum):
    CONTACT = "contact"  # this contact's own
    ALL = "all"  # that of all contacts of the bridge


class DayBudget:
    """Counts what is stored, and what is under way besides: of several at once none is overlooked.
    `now` is what time it is where messages are dated."""

    def __init__(
        self, policy: PortalPolicy, turns: TurnStore, sent: SentBook, now: Callable[[], float]
    ) -> None:
        self._policy = policy
        self._turns = turns
        self._sent = sent
        self._now = now
        self._deciding = asyncio.Lock()
        self._asking = dict[str, Turn]()

    async def ask(self, turn: Turn, portal: Portal) -> Spent | None:
        """Count a question that is to be asked now; what is used up if there is no room for it,
        and then it is not counted. One that is tried again counts once."""
        async with self._deciding:
            is_counted = turn.turn_id in self._asking
            spent = None if is_counted else await self._spent(portal, turn.sender)
            if spent is None:
                self._asking[turn.turn_id] = turn
            return spent

    async def text(self, portal: Portal, key: str, contact: str = "") -> Spent | None:
        """Count what an agent is about to send by a tool, in the same way, to a `contact`, which a
        talk of two need not name; one that is tried again has the same `key`, and counts once.
        Raises StoreUnavailable."""
        async with self._deciding:
            now = self._now()
            if key in self._sent.since(now - _DAY):
                return None
            if not contact and portal.direct:
                contact = next(iter(self._policy.contacts_in(portal)), "")
            spent = await self._spent(portal, contact)
            if spent is None:
                # Before it goes out, and whatever becomes of it: some of it may.
                await self._sent.note(key, Sent(now, portal.room_id, contact), forget=now - _DAY)
            return spent

    async def _spent(self, portal: Portal, contact: str) -> Spent | None:
        settings, book = self._policy.bridges[portal.name].settings, self._policy.book
        every = [room for one in book.all() if one.name == portal.name for room in book.rooms(one)]
        if most := settings.contact_per_day:
            begun_in = self._talks_with(portal, contact)
            # Of whom nobody knows, what was asked in their talk is theirs.
            asked_in = every if contact else begun_in
            if await self._used(asked_in, begun_in, contact) >= most:
                return Spent.CONTACT
        if (most := settings.per_day) and await self._used(every, every) >= most:
            return Spent.ALL
        return None

    def _talks_with(self, portal: Portal, contact: str) -> list[str]:
        """The rooms in which agents begin who write to a contact."""
        book, policy = self._policy.book, self._policy
        if portal.direct:
            return book.rooms(portal)
        direct = (one for one in book.all() if one.direct and one.name == portal.name)
        theirs = (one for one in direct if contact in policy.contacts_in(one))
        return [room for one in theirs for room in book.rooms(one)]

    async def _used(
        self, asked_in: Collection[str], begun_in: Collection[str], sender: str = ""
    ) -> int:
        """Questions that were asked in some rooms, by one `sender` if named, and texts that were
        begun in some, or for that one anywhere."""
        self._asking = {
            key: one for key, one in self._asking.items() if one.status is not TurnStatus.DONE
        }
        since, asking = self._now() - _DAY, list(self._asking.values())
        used = await self._turns.asked_since(
            since, asked_in, sender=sender, without=[one.turn_id for one in asking]
        )
        sent = self._sent.since(since).values()
        used += sum(one.room_id in begun_in or one.contact == (sender or None) for one in sent)
        theirs = (one for one in asking if one.room_id in asked_in)
        return used + sum(sender in ("", one.sender) and one.sent_at > since for one in theirs)
