"""One bridge as it is configured: who its users are, and what makes a room a portal of it."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from letta_matrix.common.json_fields import as_texts, mapping, string_of
from letta_matrix.config import PortalSettings, SmsSettings
from letta_matrix.portals.contacts import Routes, normal
from letta_matrix.portals.numbers import normal_number
from letta_matrix.store.portals import Portal

Event = Mapping[str, Any]

BRIDGE_STATE = ("m.bridge", "uk.half-shot.bridge")
IDENTIFIERS = "com.beeper.bridge.identifiers"
_ROOM_TYPES = ("com.beeper.room_type.v2", "com.beeper.room_type")
_CHANNEL = re.compile(r"[#&+!]")
"""How names of channels begin on IRC (RFC 2811, section 2.1)."""


class NetworkBridge:
    """Knows its users and its portals by what the homeserver says of senders. Pure. Where contacts
    are `numbered`, who has no number is nobody."""

    def __init__(self, settings: PortalSettings) -> None:
        self.settings = settings
        self.name, self.bot, self.line = settings.name, settings.bot, settings.line
        self.numbered = isinstance(settings, SmsSettings)
        self._region = settings.region if isinstance(settings, SmsSettings) else None
        self.routes = Routes(settings.routes, self.normal)
        self._ghosts = re.compile(settings.ghosts)
        self._identifier = re.compile(settings.identifier) if settings.identifier else None
        self._self = {normal(one) for one in settings.self_ghosts}

    def normal(self, contact: str) -> str:
        """A contact as it is compared."""
        return normal_number(contact, self._region) if self.numbered else normal(contact)

    def is_ghost(self, user_id: str) -> bool:
        return user_id != self.bot and self._ghosts.fullmatch(user_id) is not None

    def has(self, user_id: str) -> bool:
        """Whether it is the bridge's bot or one of its ghosts."""
        return user_id == self.bot or self.is_ghost(user_id)

    def is_self(self, user_id: str, identifiers: Iterable[str] = ()) -> bool:
        """Whether a ghost is the line itself, which may speak elsewhere too."""
        names = {normal(user_id), normal(self.remote_id(user_id)), *identifiers}
        return not names.isdisjoint(self._self)

    def remote_id(self, user_id: str) -> str:
        """What a ghost is called on its network, "" where its user id does not tell."""
        match = self._ghosts.fullmatch(user_id)
        return (match[1] or "") if match is not None and match.re.groups else ""

    def identifiers_in(self, content: Mapping[str, Any]) -> set[str]:
        """What a ghost's profile or membership says that it is reached by."""
        told = as_texts(content.get(IDENTIFIERS))
        shown = content.get("displayname")
        if self._identifier is not None and isinstance(shown, str):
            match = self._identifier.search(shown)
            told += [match[1] if match.re.groups else match[0]] if match is not None else []
        return {self.normal(one) for one in told if one}

    def portal_in(
        self, room_id: str, state: Sequence[Event], members: Iterable[str] = ()
    ) -> Portal | None:
        """The portal that a room is by its state, None for none: what others than the bridge's
        bot say of it does not count."""
        if self.settings.proof == "creator":
            return self._made(room_id, state, members)
        told = [one for one in state if one.get("type") in BRIDGE_STATE]
        found = [one for event in told if (one := self.portal_by(room_id, event)) is not None]
        return found[-1] if found else None

    def portal_by(self, room_id: str, event: Event) -> Portal | None:
        """The portal that a bridge's state event makes of a room."""
        content = mapping(event.get("content"))
        if event.get("sender") != self.bot or event.get("type") not in BRIDGE_STATE:
            return None
        if not content or content.get("bridgebot", self.bot) != self.bot:
            return None
        protocol = string_of(mapping(content.get("protocol")), "id")
        if self.settings.protocols and protocol not in self.settings.protocols:
            return None
        channel = mapping(content.get("channel"))
        direct = any(content.get(key) == "dm" for key in _ROOM_TYPES)
        ids = string_of(channel, "id"), string_of(channel, "receiver")
        return Portal(room_id, self.name, protocol, *ids, direct)

    def _made(self, room_id: str, state: Sequence[Event], members: Iterable[str]) -> Portal | None:
        latest = {(one.get("type"), one.get("state_key")): one for one in state}
        created = latest.get(("m.room.create", ""))
        if created is None or created.get("sender") != self.bot:
            return None
        named = latest.get(("m.room.name", ""), {})
        # In a room of the bridge others may rename it too.
        by_bot = named.get("sender") == self.bot
        name = string_of(mapping(named.get("content")), "name") if by_bot else ""
        ghosts = sum(self.is_ghost(one) and not self.is_self(one) for one in members)
        direct = bool(name) and not _CHANNEL.match(name) and ghosts <= 1
        protocol = next(iter(self.settings.protocols), "")
        return Portal(room_id, self.name, protocol, name, direct=direct)
