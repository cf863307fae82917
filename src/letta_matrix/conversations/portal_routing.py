"""What events of bridged networks start: turns by the portal policy's verdicts. Pure decisions."""

import re
from collections.abc import Mapping
from typing import Any

import structlog

from letta_matrix.common.json_fields import mapping
from letta_matrix.common.parts import part
from letta_matrix.config import Config
from letta_matrix.conversations.new_turns import (
    are_ids,
    command_line,
    command_turn,
    new_turn,
    sent_at,
)
from letta_matrix.matrix.events import Event
from letta_matrix.portals.deliveries import FAILED, outcome_in
from letta_matrix.portals.policy import PortalPolicy
from letta_matrix.store.rooms import Rooms
from letta_matrix.store.turn_ids import turn_id_of
from letta_matrix.store.turns import Turn, TurnKind

log = structlog.get_logger()

_FOR_US = re.compile(r"!(?:letta|portal|sms)(?:\s|\Z)", re.IGNORECASE)


@part
class PortalRouting:
    """Users of bridges are heard in portals alone, and there by the `policy`. People only give
    commands there: what they write goes out to the network, and is for nobody here."""

    _config: Config
    _policy: PortalPolicy
    _rooms: Rooms

    def is_of_network(self, user_id: object) -> bool:
        """Whether somebody is a user of a bridge: its bot, or of another network."""
        return isinstance(user_id, str) and self._policy.bridge_of(user_id) is not None

    def is_portal(self, room_id: object) -> bool:
        return isinstance(room_id, str) and self._policy.portal(room_id) is not None

    def is_line(self, user_id: str) -> bool:
        """Whether one of us is logged in to a bridge, to speak for agents."""
        return self._policy.line_of(user_id) is not None

    def agent_behind(self, event: Mapping[str, Any]) -> str | None:
        """The id of the agent for whom a line has sent an event."""
        if not self.is_line(str(event.get("sender"))):
            return None
        agent_id = Event(event).marker.get("agent_id")
        return agent_id if isinstance(agent_id, str) and agent_id else None

    def may_invite(self, sender: str, invited: str) -> bool | None:
        """Whether somebody may bring one of us into a room; None where it is as for any room."""
        if self.is_of_network(sender):
            return self._policy.may_invite(sender, invited)
        is_admin = self._config.role_of(sender) == "admin"
        return None if not self.is_line(invited) or is_admin else False

    def undelivered(self, event: Mapping[str, Any]) -> list[Turn]:
        """The turn of a message that did not go out, by what a bridge's bot says of it: one,
        however often that says so."""
        portal = self._policy.portal(str(event["room_id"]))
        if portal is None or event.get("sender") != self._policy.bridges[portal.name].bot:
            return []
        outcome = outcome_in(event)
        if outcome is None or outcome.status != FAILED or not are_ids(outcome.event_id):
            return []
        turn = new_turn(event, "", outcome.why, thread_id="")
        turn.kind, turn.event_id = TurnKind.UNDELIVERED, outcome.event_id
        turn.turn_id, turn.attachment = turn_id_of(outcome.event_id, "undelivered"), None
        # Whom it was for: the bot has only said so.
        turn.sender = next(iter(self._policy.contacts_in(portal)), turn.sender)
        return [turn]

    def turns_of(self, event: Mapping[str, Any], prompt: str | None) -> list[Turn]:
        """The turns that a message starts by a bridge's user, or in a portal."""
        room_id, sender = str(event["room_id"]), str(event["sender"])
        portal = self._policy.portal(room_id)
        if portal is None:
            return []
        if not self.is_of_network(sender):
            line = command_line(prompt or "") if _FOR_US.match((prompt or "").lstrip()) else None
            return [command_turn(event, "", line)] if line is not None else []
        verdict = self._policy.verdict(portal, sender, prompt, mapping(event.get("content")))
        if verdict.agent is None:
            log.debug("a contact is not heard", room=room_id, why=verdict.why)
            return []
        voice = self._policy.voice(verdict.agent, room_id).user_id
        agent_id = verdict.agent.agent_id
        if sent_at(event) < self._rooms.since(room_id, voice):
            return []
        turn = new_turn(event, agent_id, prompt, thread_id="")
        if verdict.keyword is not None:
            turn.kind, turn.attachment = TurnKind.KEYWORD, None
        elif self._rooms.settings(agent_id, room_id).paused:
            # Signs of ours have no place on other networks.
            return []
        return [turn]
