"""What an event of a room changes in the resources that somebody sees."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from letta_matrix.access.principal import Principal
from letta_matrix.common.json_fields import mapping
from letta_matrix.doors.mcp.resources import AGENTS, ROOMS
from letta_matrix.operations.records import AgentDirectory

LIST = ""
"""The topic of the list of resources itself; the others are ROOMS, AGENTS and ids of rooms."""

_NAMES = {"m.room.name", "m.room.canonical_alias"}


@dataclass(frozen=True, slots=True)
class Change:
    """The `topics` that an event changes. `left` is the room that whoever sees them is no longer
    in, `renamed` a room with a new name, in which they may be or not."""

    topics: frozenset[str] = frozenset()
    left: str = ""
    renamed: str = ""


class Changes:
    """Those that concern a principal, which is `user_id` on Matrix."""

    def __init__(self, principal: Principal, user_id: str, directory: AgentDirectory) -> None:
        self._principal = principal
        self._user_id = user_id
        self._directory = directory

    def sees(self, topic: str) -> bool:
        """Whether a topic concerns the principal still."""
        return topic in (LIST, ROOMS, AGENTS) or self._principal.may_act_in(topic)

    def by(self, event: Mapping[str, Any]) -> Change:
        """What a stored event changes; its shape is nobody's promise."""
        room_id, kind, key = (event.get(name) for name in ("room_id", "type", "state_key"))
        if not isinstance(room_id, str) or not isinstance(kind, str):
            return Change()
        agents = {AGENTS} if self._is_about_agents(room_id, kind, key) else set[str]()
        if not self._principal.may_act_in(room_id):
            return Change(frozenset(agents))
        if key is None:
            return Change(frozenset({room_id}) if kind != "m.reaction" else frozenset())
        if (kind, key) == ("m.room.member", self._user_id):
            return self._own_membership(event, room_id, agents)
        return Change(frozenset(agents), renamed=room_id if kind in _NAMES else "")

    def _own_membership(self, event: Mapping[str, Any], room_id: str, agents: set[str]) -> Change:
        before = mapping(mapping(event.get("unsigned")).get("prev_content")).get("membership")
        now = mapping(event.get("content")).get("membership")
        if "join" not in (before, now) or before == now:
            return Change(frozenset(agents))
        left = room_id if now != "join" else ""
        return Change(frozenset({ROOMS, LIST, *agents}), left=left)

    def _is_about_agents(self, room_id: str, kind: str, key: object) -> bool:
        """An agent's room, its name and its first members are made as the agent appears."""
        if kind == "m.room.name":
            return self._directory.by_room(room_id) is not None
        if kind != "m.room.member" or not isinstance(key, str):
            return False
        agent = self._directory.by_user(key)
        return agent is not None and agent.room_id in (None, room_id)
