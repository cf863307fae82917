"""Looks what there is to be taken over. Nothing is written, but for sessions of old users, which
end with the import."""

from collections.abc import Iterable, Mapping

from mautrix.errors import MForbidden

from letta_matrix.agents.migration.found import (
    GONE,
    UNSEEN,
    Account,
    Found,
    Living,
    OldUser,
    Room,
    Way,
    room_of,
)
from letta_matrix.agents.migration.mappings_file import OldMapping
from letta_matrix.agents.migration.old_users import OldUsers
from letta_matrix.agents.migration.plan import Rules, ghosts_of, is_let_alone
from letta_matrix.common.identifiers import room_alias
from letta_matrix.common.json_fields import Json, mapping
from letta_matrix.common.parts import part
from letta_matrix.common.side_by_side import side_by_side
from letta_matrix.matrix.homeserver import Homeserver
from letta_matrix.matrix.intent import Intent
from letta_matrix.matrix.server_admin import ServerAdmin
from letta_matrix.store.agents import Agent

_STATE = ("m.room.power_levels", "m.room.encryption", "m.room.tombstone")


@part
class Survey:
    """Methods raise MatrixRequestError, where the admin is refused, and HomeserverUnavailable."""

    _homeserver: Homeserver
    _users: OldUsers
    _admin: ServerAdmin | None
    _rules: Rules

    def __post_init__(self) -> None:
        self._eyes: dict[str, Intent] = {}

    async def look(
        self,
        mappings: Iterable[OldMapping],
        living: Mapping[str, Living],
        known: Mapping[str, Agent],
    ) -> Found:
        self._eyes.clear()
        ghosts = ghosts_of([*living, *known], known, self._rules.domain)
        wanted = [one for one in mappings if one.agent_id in living and one.agent_id in ghosts]
        whose = list(dict.fromkeys([self._rules.bot, *(ghosts[one.agent_id] for one in wanted)]))
        accounts = dict(zip(whose, await side_by_side(self._account, whose), strict=True))
        old_users = await self._old_users(wanted, Found(living, known, ghosts, {}, {}, {}, {}))
        rooms = list(dict.fromkeys(one.room_id for one in wanted if one.room_id))
        aliases = [room_alias(one.agent_id, self._rules.domain) for one in wanted]
        bot = self._homeserver.acting_as(self._rules.bot)
        return Found(
            living,
            known,
            ghosts,
            accounts,
            dict(zip(rooms, await side_by_side(self._room, rooms), strict=True)),
            old_users,
            dict(zip(aliases, await side_by_side(bot.resolve_alias, aliases), strict=True)),
            accounts[self._rules.bot],
            self._admin is not None,
        )

    async def _account(self, user_id: str) -> Account:
        intent = self._homeserver.acting_as(user_id)
        if not await self._opened(user_id, intent):
            return Account()
        return Account(exists=True, sessions=len(await intent.devices()))

    async def _opened(self, user_id: str, intent: Intent) -> bool:
        """Take somebody's rooms for places that can be looked into; whether there is such a user
        (Synapse lets nobody act as one that was not registered)."""
        try:
            rooms = await intent.joined_rooms()
        except MForbidden:
            return False
        self._eyes |= dict.fromkeys(set(rooms) - self._eyes.keys(), intent)
        return True

    async def _old_users(self, wanted: Iterable[OldMapping], found: Found) -> dict[str, OldUser]:
        """The users of mappings that are not their agents' own, one by one: logins are counted."""
        met: dict[str, OldUser] = {}
        for one in wanted:
            who = one.user_id
            if who in ("", *met, found.ghosts[one.agent_id]):
                continue
            if is_let_alone(who, one.agent_id, found, self._rules):
                continue
            met[who] = await self._users.meet(one)
            if met[who].way in (Way.OURS, Way.PASSWORD):
                intent = await self._users.acting_as(who)
                if not await self._opened(who, intent):
                    met[who] = OldUser(who, Way.NONE, "there is no such user")
        return met

    async def _room(self, room_id: str) -> Room:
        if (eyes := self._eyes.get(room_id)) is not None:
            return room_of(
                await eyes.creation(room_id),
                {name: await eyes.state(room_id, name) for name in _STATE},
                await eyes.joined_members(room_id),
            )
        if self._admin is None:
            return UNSEEN
        events = await self._admin.room_state(room_id)
        return GONE if not events else _room_in(events)


def _room_in(events: Iterable[Json]) -> Room:
    """A room by all its state."""
    of: dict[str, Json] = {}
    joined: list[str] = []
    for event in events:
        content = mapping(event.get("content"))
        if event.get("type") == "m.room.member" and content.get("membership") == "join":
            joined.append(str(event.get("state_key")))
        elif event.get("state_key") == "":
            of[str(event.get("type"))] = event
    contents = {name: mapping(of.get(name, {}).get("content")) for name in _STATE}
    return room_of(of.get("m.room.create", {}), contents, joined)
