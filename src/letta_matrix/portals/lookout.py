"""Learns which rooms are portals, from the homeserver and from what it pushes."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from weakref import WeakValueDictionary

import structlog
from mautrix.errors import MatrixRequestError, MForbidden

from letta_matrix.common import clock
from letta_matrix.common.json_fields import mapping
from letta_matrix.common.parts import part
from letta_matrix.matrix.homeserver import Homeserver, HomeserverUnavailable
from letta_matrix.matrix.intent import Intent
from letta_matrix.portals.bridges import BRIDGE_STATE, NetworkBridge
from letta_matrix.portals.policy import PortalPolicy
from letta_matrix.store.conversations import ConversationStore
from letta_matrix.store.portals import Portal
from letta_matrix.store.rooms import Rooms

log = structlog.get_logger()

_ENCRYPTION = "m.room.encryption"
_TYPES = (*BRIDGE_STATE, "m.room.create", "m.room.name", _ENCRYPTION)
_ASK_AGAIN = 60.0
"""Seconds between looks at the profile of somebody whose number is not known."""
_PATIENCE = 2.0
"""Seconds that a transaction waits for such a look."""
_MOST_PROFILES = 5
"""Ghosts of a room whose profiles are asked for: in a talk of two there is one, or two."""


@part
class Lookout:
    """Remembers in the policy's book what it learns. What nobody tells is no portal."""

    _policy: PortalPolicy
    _homeserver: Homeserver
    _rooms: Rooms
    _conversations: ConversationStore

    def __post_init__(self) -> None:
        self._asked: dict[str, float] = {}
        self._slow_until = 0.0
        self._looked_at: dict[str, bool] = {}
        self._looking: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def prepare(self) -> None:
        """Make the lines' accounts exist; nothing is written where they do. Raises as
        `Intent.register`."""
        for bridge in self._policy.bridges.values():
            if bridge.line is None:
                continue
            line = self._homeserver.acting_as(bridge.line)
            try:
                await line.joined_rooms()
            except MForbidden:
                # Nobody acts as a user that is not registered (Synapse).
                await line.register()

    async def look(self, room_id: str, user_id: str) -> None:
        """Learn whether a room that one of us (`user_id`) is in is a portal, and who talks there.
        Raises HomeserverUnavailable."""
        # Several of us may come in at once: what one has read must not go before another's news.
        async with self._looking.setdefault(room_id, asyncio.Lock()):
            # What comes while it is read would be overwritten by what was read before.
            is_old = bool(self._policy.bridges)
            while is_old:
                self._looked_at[room_id] = False
                try:
                    await self._look(room_id, user_id)
                finally:
                    is_old = self._looked_at.pop(room_id, False)

    async def _look(self, room_id: str, user_id: str) -> None:
        intent = self._homeserver.acting_as(user_id)
        try:
            members = set(await intent.joined_members(room_id))
            bridges = self._policy.bridges.values()
            bridge = next((one for one in bridges if one.bot in members), None)
            if bridge is None:
                return
            state = await _state(intent, room_id)
        except MatrixRequestError as error:
            log.warning("not known whether a room is a portal", room=room_id, reason=str(error))
            return
        portal = bridge.portal_in(room_id, state, members)
        if portal is None:
            await self._policy.book.forget(room_id)
            return
        ghosts = [who for who in sorted(members) if bridge.is_ghost(who)]
        for ghost in ghosts if len(ghosts) <= _MOST_PROFILES else ():
            await self._learn_names(bridge, ghost, intent)
        await self._learn(portal)
        contacts = [one for one in ghosts if self._policy.is_contact(portal, one)]
        if portal.direct and len(contacts) == 1:
            await self._policy.book.met(room_id, contacts[0])
        if any(one.get("type") == _ENCRYPTION for one in state):
            await self._policy.book.encrypt(room_id)

    async def look_at_all(self) -> None:
        """Look, behind all messages, at the rooms of ours that were joined before their bridge was
        configured."""
        for room_id in self._rooms.all() if self._policy.bridges else ():
            if self._policy.portal(room_id) is None:
                await self._homeserver.pacer.background()
                for user_id in list(self._rooms.ours_in(room_id))[:1]:
                    await self.look(room_id, user_id)

    async def heard(self, event: Mapping[str, Any]) -> None:
        """Learn from an event that is pushed: a portal's protocol may change in its life, and
        ghosts may get other names."""
        room_id, sender = event.get("room_id"), event.get("sender")
        if not self._policy.bridges or not isinstance(room_id, str) or not isinstance(sender, str):
            return
        bridge, portal = self._policy.bridge_of(sender), self._policy.portal(room_id)
        if portal is not None:
            await self._heard_in(portal, bridge, sender, event)
        if bridge is None or event.get("state_key") is None:
            return
        if room_id in self._looked_at:
            self._looked_at[room_id] = True
        if not self._rooms.ours_in(room_id) and self._policy.portal(room_id) is None:
            return
        if event.get("type") == "m.room.member" and event.get("state_key") == sender:
            found = bridge.identifiers_in(mapping(event.get("content")))
            # Of a profile a membership has the name alone: what else is known stays.
            if found and self._policy.portal(room_id) is not None:
                await self._policy.book.claim(bridge.name, sender, found)
        elif event.get("type") in BRIDGE_STATE and bridge.settings.proof == "bridge_state":
            await self._heard_of(bridge, room_id, event)

    async def _heard_in(
        self, portal: Portal, bridge: NetworkBridge | None, sender: str, event: Mapping[str, Any]
    ) -> None:
        """Learn from what is said in a portal."""
        kind = event.get("type")
        is_state = kind == _ENCRYPTION and event.get("state_key") == ""
        if is_state or (kind == "m.room.encrypted" and bridge is not None):
            await self._policy.book.encrypt(portal.room_id)
        if bridge is None or kind != "m.room.message":
            return
        if bridge.numbered:
            await self._learn_number(bridge, sender, portal.room_id)
        if portal.direct and self._policy.is_contact(portal, sender):
            await self._policy.book.met(portal.room_id, sender)

    async def _heard_of(
        self, bridge: NetworkBridge, room_id: str, event: Mapping[str, Any]
    ) -> None:
        if event.get("sender") != bridge.bot:
            return
        known, portal = self._policy.portal(room_id), bridge.portal_by(room_id, event)
        if portal is not None:
            await self._learn(portal)
        elif known is not None and known.name == bridge.name:
            log.info("a room is no portal any more", room=room_id, bridge=bridge.name)
            await self._policy.book.forget(room_id)

    async def _learn(self, portal: Portal) -> None:
        known, book = self._policy.book.portal(portal.room_id), self._policy.book
        if known is not None:
            portal = replace(portal, held=known.held)
        for old in self._replaced(portal):
            # The bridge has made another room for the same talk: what held there holds here.
            portal = replace(portal, held=portal.held or old.held)
            for agent_id in self._conversations.agents_in(old.room_id):
                await self._conversations.move(agent_id, old.room_id, portal.room_id)
            await book.replace(old, portal)
            log.info("a portal was made again", room=portal.room_id, before=old.room_id)
        if portal != known:
            log.info("a portal", room=portal.room_id, bridge=portal.name, protocol=portal.protocol)
            await book.learn(portal)

    def _replaced(self, portal: Portal) -> list[Portal]:
        same = (portal.name, portal.channel, portal.receiver, portal.direct)
        return [
            one
            for one in self._policy.book.all()
            if portal.channel
            and one.room_id != portal.room_id
            and (one.name, one.channel, one.receiver, one.direct) == same
        ]

    async def _learn_number(self, bridge: NetworkBridge, sender: str, room_id: str) -> None:
        """Ask who somebody is who came later than we did, or whose bridge has told it later."""
        ours, asked = list(self._rooms.ours_in(room_id)), self._asked.get(sender, -_ASK_AGAIN)
        who = bridge.line or next(iter(ours), None)
        is_known = bool(self._policy.book.claims(sender)) or not bridge.is_ghost(sender)
        now = clock.now()
        if is_known or who is None or now - asked < _ASK_AGAIN or now < self._slow_until:
            return
        self._asked[sender] = now
        try:
            async with asyncio.timeout(_PATIENCE):
                await self._learn_names(bridge, sender, self._homeserver.acting_as(who))
        except TimeoutError:
            # Everybody's messages wait for this.
            self._slow_until = clock.now() + _ASK_AGAIN

    async def _learn_names(self, bridge: NetworkBridge, ghost: str, intent: Intent) -> None:
        try:
            profile = await intent.profile(ghost)
        except (MatrixRequestError, HomeserverUnavailable) as error:
            log.info("a ghost's profile cannot be read", user=ghost, reason=str(error))
            return
        found = bridge.identifiers_in(profile)
        if not found and self._policy.book.claims(ghost):
            # Somebody else has told it.
            return
        await self._policy.book.claim(bridge.name, ghost, found)
        for one in found:
            if len(self._policy.book.claimants(bridge.name, one)) > 1:
                log.warning(
                    "two ghosts claim one identifier: it routes neither", bridge=bridge.name
                )


async def _state(intent: Intent, room_id: str) -> list[dict[str, Any]]:
    """A room's state of the types that tell, whole, with its senders."""
    newest = (await intent.messages(room_id, limit=1)).events
    if not newest:
        return []
    wanted = {"types": list(_TYPES), "lazy_load_members": True}
    around = await intent.around(room_id, str(newest[0].get("event_id")), limit=1, filters=wanted)
    return around.state
