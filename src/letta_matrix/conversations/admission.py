"""Letting people into agents' rooms again who were let in before."""

from enum import Enum

from mautrix.errors import MNotFound

from letta_matrix.common.json_fields import Json, mapping
from letta_matrix.config import Config
from letta_matrix.matrix.events import Event
from letta_matrix.matrix.homeserver import Homeserver
from letta_matrix.matrix.intent import Intent
from letta_matrix.store.agents import Agent


class Admitted(Enum):
    """What became of somebody's wish to be in an agent's room."""

    INVITED = "invited"
    INSIDE = "inside"
    WAITING = "waiting"  # for them: they were invited already
    STRANGER = "stranger"  # nobody has let them in so far, or they were put out
    BANNED = "banned"
    NO_ROOM = "no room"


_BY_MEMBERSHIP = {
    "join": Admitted.INSIDE,
    "ban": Admitted.BANNED,
    "invite": Admitted.WAITING,
}


class Admission:
    """Invites people into agents' own rooms.

    Those whom the configuration names as members or admins come in, and those who were in and
    left by themselves; others by an admin's word alone.
    """

    def __init__(self, config: Config, homeserver: Homeserver) -> None:
        self._config = config
        self._homeserver = homeserver

    async def admit(self, agent: Agent, person: str, *, by_admin: bool) -> Admitted:
        """Invite a person into an agent's room, if they may be there and are not. Raises
        MatrixRequestError or HomeserverUnavailable."""
        if agent.room_id is None:
            return Admitted.NO_ROOM
        ghost = self._homeserver.acting_as(agent.user_id)
        member = await _member(ghost, agent.room_id, person)
        if (known := _BY_MEMBERSHIP.get(Event(member).membership)) is not None:
            return known
        if not (by_admin or self._may_enter(person) or _left_by_themselves(member)):
            return Admitted.STRANGER
        await ghost.invite(agent.room_id, person)
        return Admitted.INVITED

    def _may_enter(self, person: str) -> bool:
        role = self._config.role_of(person)
        return role == "admin" or (role != "block" and person in self._config.agents.room_members)


async def _member(ghost: Intent, room_id: str, person: str) -> Json:
    """Somebody's whole `m.room.member` event in a room, empty if there is none."""
    try:
        return await ghost.state_event(room_id, "m.room.member", person)
    except MNotFound:
        return {}


def _left_by_themselves(member: Json) -> bool:
    """Whether somebody was in a room, or invited, and went; not whether they wished to come."""
    before = mapping(mapping(member.get("unsigned")).get("prev_content")).get("membership")
    return member.get("sender") == member.get("state_key") and before in ("join", "invite")
