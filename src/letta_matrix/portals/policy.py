"""Who of other networks prompts which agent, and who of us speaks there. Pure: decided by the
configuration and what is remembered, without any request. Silence is the default."""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from letta_matrix.common.parts import part
from letta_matrix.config import PortalSettings
from letta_matrix.config.sms import RCS
from letta_matrix.matrix.mentions import mentioned
from letta_matrix.portals.bridges import NetworkBridge
from letta_matrix.portals.contacts import normal
from letta_matrix.portals.keywords import Keyword, keyword_in
from letta_matrix.store.agents import Agent, AgentDirectory, AgentStatus, meant
from letta_matrix.store.portals import BLOCKED, Contact, Portal, PortalBook
from letta_matrix.store.rooms import Rooms


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a contact's message means: a question for `agent`, a `keyword`, or nothing, and then
    `why`."""

    agent: Agent | None = None
    keyword: Keyword | None = None
    why: str = ""


@part
class PortalPolicy:
    """The bridges of the configuration, over what the `book` remembers. `now` is what time it is
    where messages are dated."""

    _portals: Sequence[PortalSettings]
    book: PortalBook
    _directory: AgentDirectory
    _rooms: Rooms
    now: Callable[[], float] = time.time

    def __post_init__(self) -> None:
        self.bridges = {one.name: NetworkBridge(one) for one in self._portals}

    def bridge_of(self, user_id: str) -> NetworkBridge | None:
        """The bridge whose bot or ghost somebody is."""
        return next((one for one in self.bridges.values() if one.has(user_id)), None)

    def line_of(self, user_id: str) -> NetworkBridge | None:
        """The bridge whose line one of us is."""
        return next((one for one in self.bridges.values() if one.line == user_id), None)

    def portal(self, room_id: str) -> Portal | None:
        """The portal that a room is, of a bridge that is configured."""
        portal = self.book.portal(room_id) if self.bridges else None
        return portal if portal is not None and portal.name in self.bridges else None

    def bridge_at(self, room_id: str, sender: str) -> NetworkBridge | None:
        """The bridge by which a message has come, though its room may be no portal any more; None
        for any other."""
        portal = self.portal(room_id)
        return self.bridges[portal.name] if portal is not None else self.bridge_of(sender)

    def joins_within(self, room_id: str) -> float | None:
        """Seconds within which what a contact writes in a portal is one question; None where a
        room is none."""
        portal = self.portal(room_id)
        return None if portal is None else self.bridges[portal.name].settings.join_messages

    def shows_attention(self, room_id: str) -> bool:
        """Whether read receipts and typing reach whoever talks in a portal: of text messages RCS
        alone knows them, and a talk may change between both at any time."""
        portal = self.portal(room_id)
        is_sms = portal is not None and self.bridges[portal.name].settings.sms
        return portal is None or not is_sms or portal.protocol == RCS

    def takes_captions(self, portal: Portal) -> bool:
        """Whether words that come with a picture reach whoever talks in a portal: mautrix-gmessages
        promises that of SMS alone."""
        return portal.protocol != RCS

    def is_silent(self, portal: Portal, sender: str, agent_id: str) -> bool:
        """Whether a contact is not, or no longer, answered by an agent."""
        agent = self.agent_for(portal, sender)
        is_theirs = agent is not None and agent.agent_id == agent_id
        return not is_theirs or bool(self.silence(portal, sender))

    def may_invite(self, sender: str, invited: str) -> bool:
        """Whether a bridge may bring one of us into a room: its line, and the agents that its
        routes lead to."""
        bridge = self.bridge_of(sender)
        if bridge is None:
            return False
        agent = self._directory.by_user(invited)
        return invited == bridge.line or (agent is not None and self._is_routed(bridge, agent))

    def voice(self, agent: Agent, room_id: str) -> Agent:
        """An agent as it is heard in a room: as the line of the bridge where that is there."""
        portal = self.portal(room_id)
        line = self.bridges[portal.name].line if portal is not None else None
        is_there = line is not None and line in self._rooms.ours_in(room_id)
        return replace(agent, user_id=line) if line is not None and is_there else agent

    def speaker_in(self, agent: Agent, room_id: str) -> str | None:
        """Who of us speaks for an agent in a portal; None while nobody is there."""
        speaker = self.voice(agent, room_id).user_id
        return speaker if speaker in self._rooms.ours_in(room_id) else None

    def verdict(
        self, portal: Portal, sender: str, text: str | None, content: Mapping[str, Any]
    ) -> Verdict:
        """What a message says to us that one of a bridge's users wrote in a portal."""
        bridge = self.bridges[portal.name]
        if not self.is_contact(portal, sender):
            return Verdict(why="no contact")
        agent = self.agent_for(portal, sender)
        if agent is None:
            return Verdict(why="no route")
        if self.speaker_in(agent, portal.room_id) is None:
            return Verdict(why="the agent is not in the portal")
        keyword = keyword_in(text or "") if portal.direct else None
        # Who gets messages may well begin with "Start".
        is_stopped = self.decided(portal.name, sender).stopped
        if keyword is not None and (keyword is not Keyword.START or is_stopped):
            return Verdict(agent, keyword)
        if (why := self.silence(portal, sender)) or portal.direct:
            return Verdict(why=why) if why else Verdict(agent)
        if not bridge.settings.groups:
            return Verdict(why="agents do not answer in groups of this bridge")
        ours = {agent.user_id, *([bridge.line] if bridge.line else [])}
        is_meant = bool(mentioned(content, ours)) or _is_called(agent.name, text or "")
        return Verdict(agent) if is_meant else Verdict(why="not addressed")

    def silence(self, portal: Portal, sender: str) -> str:
        """Why a contact that has a route gets no answer now, "" where they do."""
        if portal.held or self.book.typed_until(portal.room_id) > self.now():
            return "held"
        return "stopped" if self.decided(portal.name, sender).stopped else ""

    def agent_for(self, portal: Portal, sender: str) -> Agent | None:
        """The agent that a contact's messages are for, if that is there."""
        bridge, names = self.bridges[portal.name], self.names_of(portal.name, sender)
        decided = self.decided(portal.name, sender).agent_id
        if decided is not None:
            return self._active(self._directory.get(decided)) if decided != BLOCKED else None
        if bridge.numbered:
            # Only numbers have prefixes, and who has none may be the phone itself.
            has_number = len(names) > len(self._ids_of(portal.name, sender))
            route = bridge.routes.of if has_number else bridge.routes.exact
            return self.agent_named(route(names) or "")
        # Bridges may say in a channel's name which network it is of.
        called = (portal.channel, portal.channel.partition(" ")[0]) if not portal.direct else ()
        channel = [normal(one) for one in called if one]
        return self.agent_named(bridge.routes.of([*names, *channel]) or "")

    def agent_at(self, name: str, contact: str) -> Agent | None:
        """The agent that answers a contact of a bridge by a normal name, whoever has that."""
        known = self.book.contact(name, contact)
        if known is not None and known.agent_id is not None:
            return self._active(self._directory.get(known.agent_id))
        return self.agent_named(self.bridges[name].routes.of([contact]) or "")

    def agent_of(self, portal: Portal) -> Agent | None:
        """The agent that serves a portal: that of the first contact there who has one."""
        found = (self.agent_for(portal, who) for who in self.contacts_in(portal))
        return next((agent for agent in found if agent is not None), None)

    def contacts_in(self, portal: Portal) -> list[str]:
        """Those of a network who are in a portal, without the line itself."""
        there = sorted(self._rooms.people_in(portal.room_id) or ())
        if not there and (ghost := self.book.ghost_in(portal.room_id)):
            there = [ghost]
        return [one for one in there if self.is_contact(portal, one)]

    def is_contact(self, portal: Portal, user_id: str) -> bool:
        """Whether somebody in a portal talks from the network, and is not the line itself."""
        is_ghost = self.bridges[portal.name].is_ghost(user_id)
        return is_ghost and not self.is_line_itself(portal, user_id)

    def is_line_itself(self, portal: Portal, user_id: str) -> bool:
        """Whether one of a bridge's users is whoever is logged in to it, on a device of theirs."""
        bridge, claims = self.bridges[portal.name], self.book.claims(user_id)
        if not bridge.is_ghost(user_id):
            return False
        is_unnumbered = bridge.numbered and not claims
        is_known = is_unnumbered and any(
            bridge.routes.exact([one]) or self.book.contact(portal.name, one)
            for one in self._ids_of(portal.name, user_id)
        )
        return (is_unnumbered and not is_known) or bridge.is_self(user_id, claims)

    def agent_named(self, ref: str) -> Agent | None:
        """An agent by its id, its user id or its name, if just one is called so."""
        fits = meant(ref, self._directory.active()) if ref else []
        return fits[0] if len(fits) == 1 else None

    def names_of(self, name: str, user_id: str) -> list[str]:
        """What a contact goes by, the surest first. What two ghosts claim is neither's."""
        own = [
            one
            for one in sorted(self.book.claims(user_id))
            if len(self.book.claimants(name, one)) == 1
        ]
        return [*self._ids_of(name, user_id), *own]

    def all_names(self, name: str, user_id: str) -> list[str]:
        """The same with what others claim too."""
        return [*self._ids_of(name, user_id), *self.book.claims(user_id)]

    def key_of(self, name: str, user_id: str) -> str:
        """What is decided about a contact is kept by: what stays theirs though the bridge makes
        another ghost for them."""
        return self.names_of(name, user_id)[-1]

    def decided(self, name: str, user_id: str) -> Contact:
        """What was decided about a contact by any of their names; against them also by those that
        others claim too."""
        every = self.all_names(name, user_id)
        against = [one for key in every if (one := self.book.contact(name, key)) is not None]
        known = [self.book.contact(name, key) for key in self.names_of(name, user_id)]
        allowed = (one.agent_id for one in known if one is not None and one.agent_id is not None)
        is_blocked = any(one.agent_id == BLOCKED for one in against)
        return Contact(
            name,
            self.key_of(name, user_id),
            BLOCKED if is_blocked else next(allowed, None),
            any(one.stopped for one in against),
        )

    def _ids_of(self, name: str, user_id: str) -> list[str]:
        ids = (user_id, self.bridges[name].remote_id(user_id))
        return [normal(one) for one in ids if one]

    def _is_routed(self, bridge: NetworkBridge, agent: Agent) -> bool:
        refs = {*bridge.settings.routes.values()}
        refs |= {one.agent_id for one in self.book.contacts(bridge.name) if one.agent_id}
        found = (self.agent_named(ref) for ref in refs)
        return any(one is not None and one.agent_id == agent.agent_id for one in found)

    def _active(self, agent: Agent | None) -> Agent | None:
        return agent if agent is not None and agent.status is AgentStatus.ACTIVE else None


def _is_called(name: str, text: str) -> bool:
    """Whether a line begins with somebody's name, as people call each other on other networks."""
    called = rf"\s*@?{re.escape(name)}(?:\W|\Z)"
    return bool(name) and re.match(called, text, re.IGNORECASE) is not None
