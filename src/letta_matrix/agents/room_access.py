"""Who may do what in an agent's own room, and what those who come later read there."""

import asyncio
import math
from collections.abc import Iterable, Mapping
from typing import Any

import structlog
from mautrix.errors import MatrixRequestError

from letta_matrix.common.json_fields import mapping
from letta_matrix.config import Config
from letta_matrix.matrix.errors import why
from letta_matrix.matrix.homeserver import HomeserverUnavailable
from letta_matrix.matrix.intent import Intent

log = structlog.get_logger()

INVITE, ADMIN = 10, 100
"""Power levels: a person with the first may invite others and no more."""


def wanted_access(config: Config) -> dict[str, Any]:
    """What holds in every agent's room: `history` (spec: m.room.history_visibility) and the
    power levels of `people`. Admins are named where the configuration names them one by one."""
    named = {person for person, role in config.permissions.items() if role == "admin"}
    people = {person: ADMIN for person in named if person.startswith("@")}
    for person in config.agents.room_members:
        people[person] = ADMIN if config.role_of(person) == "admin" else INVITE
    return {"history": config.agents.room_history, "people": dict(sorted(people.items()))}


def access_content(access: Mapping[str, Any], ours: Iterable[str]) -> dict[str, Any]:
    """The part of a room's creation that brings this access about. `ours` are those of us who
    get all power, which creators have anyhow since room version 12 and may not be given."""
    history = {"history_visibility": access["history"]}
    users = {**access["people"], **dict.fromkeys(ours, ADMIN)}
    return {
        "power_level_content_override": {"invite": INVITE, "users": users},
        "initial_state": [{"type": "m.room.history_visibility", "content": history}],
    }


async def change_access(
    ghost: Intent, room_id: str, access: Mapping[str, Any], before: Mapping[str, Any]
) -> None:
    """Bring it about in a room that is there, `before` what was applied last. Raises
    MatrixRequestError, where people have taken the agent's power, and HomeserverUnavailable."""
    history = await ghost.state(room_id, "m.room.history_visibility")
    if history.get("history_visibility") != access["history"]:
        content = {"history_visibility": access["history"]}
        await ghost.set_state(room_id, "m.room.history_visibility", content)
    levels = await ghost.state(room_id, "m.room.power_levels")
    changed = _levels(levels, access["people"], mapping(before.get("people")), ghost.user_id)
    if changed != levels:
        await ghost.set_state(room_id, "m.room.power_levels", changed)


async def invite_all(ghost: Intent, room_id: str, people: Iterable[str]) -> dict[str, str]:
    """Invite people side by side; of those who could not be invited, who and why. One whose
    server does not answer keeps nobody else waiting."""

    async def invite(person: str) -> str:
        try:
            await ghost.invite(room_id, person)
        except (MatrixRequestError, HomeserverUnavailable) as error:
            log.info("somebody cannot be invited", room=room_id, user=person, reason=why(error))
            return why(error)
        return ""

    wanted = sorted(people)
    refused = dict(zip(wanted, await asyncio.gather(*map(invite, wanted)), strict=True))
    return {person: reason for person, reason in refused.items() if reason}


def uninvited(refused: Mapping[str, str]) -> str:
    """What to tell of those who could not be invited: the log has their names."""
    return f"{len(refused)} cannot be invited (the log says who): " + "; ".join(
        dict.fromkeys(refused.values())
    )


def _levels(
    levels: Mapping[str, Any], people: Mapping[str, int], before: Mapping[str, Any], ghost: str
) -> dict[str, Any]:
    """The content of m.room.power_levels with what we want for `people`; whom people of the room
    gave more keep it, whom we gave it `before` and no more have none. `ghost` changes it: nobody
    takes power from their equals (spec: Authorization rules), so these keep it, too."""
    given_now = mapping(levels.get("users"))
    own = given_now.get(ghost, math.inf)  # creators stand in no list, and above it

    def is_ours_to_take(person: str) -> bool:
        given = given_now.get(person)
        return given == before.get(person) and isinstance(given, int) and given < own

    users = {
        person: level
        for person, level in given_now.items()
        if person in people or not is_ours_to_take(person)
    }
    for person, level in people.items():
        given = users.get(person)
        if is_ours_to_take(person) or not isinstance(given, int) or given < level:
            users[person] = level
    invite = levels.get("invite", 0)
    raised = invite if isinstance(invite, int) and invite > INVITE else INVITE
    return {**levels, "invite": raised, "users": users}
