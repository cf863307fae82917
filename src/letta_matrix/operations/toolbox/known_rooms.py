"""What was learnt of rooms a moment ago, so that one call after another need not ask again."""

import asyncio
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from letta_matrix.common import clock
from letta_matrix.common.side_by_side import side_by_side
from letta_matrix.matrix.event_bus import EventBus
from letta_matrix.matrix.intent import Intent

_CARD_FOR = 30.0
_MEMBER_FOR = 10.0
"""Seconds for which what was learnt is used. What the bridge hears of ends it at once."""

_MOST = 5_000
_SHOWN = 4
_ON_CARDS = ("m.room.name", "m.room.canonical_alias", "m.room.member")


@dataclass(frozen=True, slots=True)
class Card:
    """How a room is called: `name` and `alias`, "" where there is none; of a room without a
    name `people`, some who are in it, by user id."""

    name: str
    alias: str
    people: Mapping[str, str]

    def title(self, own_id: str) -> str:
        """The name, or the others' names (spec: Calculating the display name for a room)."""
        if self.name:
            return self.name
        others = sorted(name for user_id, name in self.people.items() if user_id != own_id)
        return ", ".join(others[:_SHOWN]) + (", ..." if len(others) > _SHOWN else "")


@dataclass(slots=True)
class _Known:
    until: float
    card: Card | None = None


class KnownRooms:
    """Remembers rooms' names and who of us was in them.

    Cards are for those who are in the room: whoever asks must have looked.
    """

    def __init__(self, event_bus: EventBus) -> None:
        self._cards: dict[str, _Known] = {}
        self._members: dict[tuple[str, str], float] = {}
        self._listening = ExitStack()
        self._listening.enter_context(event_bus.listen(self._changed))

    async def card(self, intent: Intent, room_id: str) -> Card:
        """What a room is called that `intent` is in."""
        known = self._cards.get(room_id)
        if known is not None and known.card is not None and known.until > clock.now():
            return known.card
        # Noted before it is asked for: a change that arrives meanwhile takes the note away.
        noted = _Known(clock.now() + _CARD_FOR)
        _forget_oldest(self._cards)
        self._cards[room_id] = noted
        noted.card = await _card(intent, room_id)
        return noted.card

    async def cards(self, intent: Intent, room_ids: Iterable[str]) -> dict[str, Card]:
        """What rooms are called that `intent` is in, by room id."""

        async def card(room_id: str) -> tuple[str, Card]:
            return room_id, await self.card(intent, room_id)

        return dict(await side_by_side(card, room_ids))

    def was_in(self, intent: Intent, room_id: str) -> bool:
        """Whether it was in a room a few seconds ago. One that has left since sees on the
        homeserver no more than what was said while it was there."""
        return self._members.get((intent.user_id, room_id), 0.0) > clock.now()

    async def is_in(self, intent: Intent, room_id: str) -> bool:
        """Whether it is in a room, by the homeserver."""
        if room_id not in await intent.joined_rooms():
            self._members.pop((intent.user_id, room_id), None)
            return False
        _forget_oldest(self._members)
        self._members[intent.user_id, room_id] = clock.now() + _MEMBER_FOR
        return True

    def _changed(self, event: Mapping[str, Any]) -> None:
        kind, room_id = event.get("type"), event.get("room_id")
        if kind not in _ON_CARDS or not isinstance(room_id, str):
            return
        self._cards.pop(room_id, None)
        if kind == "m.room.member":
            self._members.pop((str(event.get("state_key")), room_id), None)


async def _card(intent: Intent, room_id: str) -> Card:
    name, aliases = await asyncio.gather(
        intent.room_name(room_id), intent.state(room_id, "m.room.canonical_alias")
    )
    alias = aliases.get("alias")
    joined = {} if name else await intent.joined_members(room_id)
    people = dict(sorted(joined.items(), key=lambda member: member[1])[: _SHOWN + 2])
    return Card(name, alias if isinstance(alias, str) else "", people)


def _forget_oldest(known: dict[Any, Any]) -> None:
    if len(known) >= _MOST:
        del known[next(iter(known))]
