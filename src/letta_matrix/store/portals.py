"""Rooms that stand for talks on other networks, and what was decided about who talks there."""

from collections.abc import Collection
from dataclasses import dataclass, replace

from sqlalchemy import delete, select

from letta_matrix.common.changes import Changes
from letta_matrix.store.database import Database
from letta_matrix.store.rows import replacing, row_of
from letta_matrix.store.schema import meta, portal_contacts, portal_ghosts, portals

BLOCKED = ""
"""In place of an agent: nobody answers this contact."""

_TYPED, _REPLACED = "typed in ", "portal before "
_ENCRYPTED, _WITH = "encrypted portal ", "contact in "
_FACTS = (_TYPED, _REPLACED, _ENCRYPTED, _WITH)
"""Keys in `meta`, each with a room's id behind it."""


@dataclass(frozen=True, slots=True)
class Portal:
    """A room that the bridge `name` keeps for a talk on its network. `channel` is what that is
    called there, "" where it is not known, `receiver` whose login it belongs to; `direct`: a talk
    of two. While it is `held` no agent says anything there."""

    room_id: str
    name: str
    protocol: str = ""
    channel: str = ""
    receiver: str = ""
    direct: bool = False
    held: bool = False


@dataclass(frozen=True, slots=True)
class Contact:
    """What was decided about somebody of a network: the agent that answers them (None: as
    configured, BLOCKED: none), and whether they want no more messages. `word` is the keyword that
    they were told of last, at `told_at` (Unix time)."""

    name: str
    contact: str
    agent_id: str | None = None
    stopped: bool = False
    word: str = ""
    told_at: float = 0.0


class PortalBook:
    """The `portals`, `portal_ghosts` and `portal_contacts` tables, held in memory and written
    through; `changes` are told of what is learnt. Call `load()` before use."""

    def __init__(self, database: Database, changes: Changes | None = None) -> None:
        self._database = database
        self.changes = changes or Changes()
        self._portals: dict[str, Portal] = {}
        self._contacts: dict[tuple[str, str], Contact] = {}
        self._claims: dict[str, frozenset[str]] = {}
        self._claimants: dict[tuple[str, str], set[str]] = {}
        self._facts: dict[str, str] = {}
        self._after: dict[str, str] = {}

    async def load(self) -> None:
        for portal in await self._database.records(Portal, select(portals)):
            self._portals[portal.room_id] = portal
        for one in await self._database.records(Contact, select(portal_contacts)):
            self._contacts[one.name, one.contact] = one
        for row in await self._database.rows(select(portal_ghosts)):
            self._claimed(row["name"], row["user_id"], row["identifiers"])
        for row in await self._database.rows(select(meta)):
            if row["key"].startswith(_REPLACED):
                self._after[row["key"].removeprefix(_REPLACED)] = row["value"]
            elif row["key"].startswith(_FACTS):
                self._facts[row["key"]] = row["value"]

    def portal(self, room_id: str) -> Portal | None:
        return self._portals.get(room_id)

    def all(self) -> list[Portal]:
        return list(self._portals.values())

    async def learn(self, portal: Portal) -> None:
        """A room is this portal now."""
        if self._portals.get(portal.room_id) != portal:
            await self._database.execute(*replacing(portals, row_of(portal)))
            self._portals[portal.room_id] = portal
            self.changes.tell()

    async def forget(self, room_id: str) -> None:
        """A room is no portal any more."""
        if room_id in self._portals:
            await self._database.execute(delete(portals).where(portals.c.room_id == room_id))
            self._portals.pop(room_id, None)

    async def replace(self, old: Portal, portal: Portal) -> None:
        """The bridge has made another room for a talk, which is this `portal` now: who was left
        alone there is left alone in this one, and what was said there counts. All at once: half
        of it would let agents speak where they are to be silent."""
        room_id, until = portal.room_id, self.typed_until(old.room_id)
        typed = {_TYPED + room_id: str(until)} if until > self.typed_until(room_id) else {}
        rows = {_REPLACED + old.room_id: room_id, **typed}
        named = (replacing(meta, {"key": key, "value": value}) for key, value in rows.items())
        await self._database.execute(
            delete(portals).where(portals.c.room_id == old.room_id),
            delete(meta).where(meta.c.key == _REPLACED + room_id),
            *(step for steps in named for step in steps),
            *replacing(portals, row_of(portal)),
        )
        self._portals.pop(old.room_id, None)
        self._portals[room_id] = portal
        self._after.pop(room_id, None)
        self._after[old.room_id] = room_id
        self._facts |= typed
        self.changes.tell()

    def rooms(self, portal: Portal) -> list[str]:
        """A portal's room, and those that it has had before."""
        found = [portal.room_id]
        for one in found:
            found += [old for old, new in self._after.items() if new == one]
        return found

    async def hold(self, portals_held: Collection[Portal], *, held: bool) -> None:
        """Silence the agents in these portals, or let them speak again."""
        changed = [replace(one, held=held) for one in portals_held]
        steps = (step for one in changed for step in replacing(portals, row_of(one)))
        await self._database.execute(*steps)
        self._portals |= {one.room_id: one for one in changed}

    def typed_until(self, room_id: str) -> float:
        """Until when (Unix time) a portal is left to the person who has written there, 0 for no
        such time."""
        return float(self._facts.get(_TYPED + room_id, 0.0))

    async def typed(self, room_id: str, until: float) -> None:
        """A person has written in a portal, and is left alone there `until` then."""
        await self._note(_TYPED + room_id, str(until))

    def ghost_in(self, room_id: str) -> str:
        """Who was last seen on the other side of a talk of two, "" for nobody."""
        return self._facts.get(_WITH + room_id, "")

    async def met(self, room_id: str, ghost: str) -> None:
        """Somebody is on the other side of a talk of two: after a restart that is known before
        anybody has looked who is in the room."""
        await self._note(_WITH + room_id, ghost)

    def is_encrypted(self, room_id: str) -> bool:
        """Whether nothing that is said in a portal can be read."""
        return _ENCRYPTED + room_id in self._facts

    async def encrypt(self, room_id: str) -> None:
        """A portal is encrypted, which no room ceases to be."""
        await self._note(_ENCRYPTED + room_id, "1")

    def contact(self, name: str, contact: str) -> Contact | None:
        """What was decided about a contact of a bridge."""
        return self._contacts.get((name, contact))

    def contacts(self, name: str = "") -> list[Contact]:
        """All that something was decided about, at one bridge if named."""
        return [one for one in self._contacts.values() if name in ("", one.name)]

    async def decide(self, contact: Contact) -> None:
        """From now on this holds for a contact."""
        await self._database.execute(*replacing(portal_contacts, row_of(contact)))
        self._contacts[contact.name, contact.contact] = contact

    def claims(self, user_id: str) -> frozenset[str]:
        """The identifiers that a bridge gives one of its ghosts."""
        return self._claims.get(user_id, frozenset())

    def claimants(self, name: str, identifier: str) -> Collection[str]:
        """The ghosts of a bridge that have an identifier."""
        return self._claimants.get((name, identifier), ())

    def contested(self) -> dict[str, Collection[str]]:
        """Identifiers that several ghosts of one bridge have, with those."""
        found = self._claimants.items()
        return {one: frozenset(ghosts) for (_, one), ghosts in found if len(ghosts) > 1}

    async def claim(self, name: str, user_id: str, identifiers: Collection[str]) -> None:
        """A bridge's ghost has these identifiers now, and no others."""
        if self.claims(user_id) == frozenset(identifiers):
            return
        values = {"user_id": user_id, "name": name, "identifiers": sorted(identifiers)}
        await self._database.execute(*replacing(portal_ghosts, values))
        self._claimed(name, user_id, identifiers)
        self.changes.tell()

    async def _note(self, key: str, value: str) -> None:
        if self._facts.get(key) != value:
            await self._database.execute(*replacing(meta, {"key": key, "value": value}))
            self._facts[key] = value

    def _claimed(self, name: str, user_id: str, identifiers: Collection[str]) -> None:
        for identifier in self.claims(user_id):
            self._claimants[name, identifier].discard(user_id)
        self._claims[user_id] = frozenset(identifiers)
        for identifier in identifiers:
            self._claimants.setdefault((name, identifier), set()).add(user_id)
