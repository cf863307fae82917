"""Checks of the agents' own rooms."""

from mautrix.errors import MatrixRequestError

from letta_matrix.app.checks import some_of
from letta_matrix.cli.doctor.check import check
from letta_matrix.cli.doctor.finding import Finding, Findings, fine, trouble, unknown, warning
from letta_matrix.cli.doctor.subject import Subject
from letta_matrix.common.side_by_side import side_by_side
from letta_matrix.matrix.requests import HomeserverUnavailable
from letta_matrix.store.agents import Agent
from letta_matrix.store.database import StoreError

_MOST = 100
"""Rooms that are looked at: a homeserver has more to do."""
_NEW_ROOM = "`letta-matrix forget AGENT --new-room` gives it another one, with the bridge stopped"


@check(
    "rooms",
    shows="agents are mute in their own rooms, or cannot invite and rename there",
    needs=("homeserver", "registration"),
    vital="agents",
)
async def rooms(subject: Subject) -> Finding | Findings:
    """Whether agents are in their rooms, and have the power to look after them."""
    try:
        agents = [one for one in await subject.agents() if one.room_id]
    except StoreError:
        return unknown("the database does not tell which rooms there are")
    looked_at = agents[:_MOST]
    try:
        stands = await side_by_side(lambda agent: _power(subject, agent), looked_at)
    except HomeserverUnavailable as error:
        return unknown(f"the rooms cannot be looked at: {error}")
    named = [(agent.name, stand) for agent, stand in zip(looked_at, stands, strict=True)]
    return judge_rooms(named, len(agents))


def judge_rooms(stands: list[tuple[str, bool | None]], rooms: int) -> Findings:
    """By name whether each agent has power in its room, None for one that is not there; `rooms`
    is how many there are."""
    out = [name for name, power in stands if power is None]
    weak = [name for name, power in stands if power is False]
    results: Findings = []
    if out:
        results.append(
            trouble(
                f"not in their own rooms, or shut out of them: {some_of(out)}",
                f"invite them there again; {_NEW_ROOM}",
            )
        )
    if weak:
        results.append(
            warning(
                f"without the power to invite and to change their own rooms: {some_of(weak)}",
                "let somebody with power there make the agent an admin; homeserver.admin_username "
                f"and admin_password let the bridge do so; or {_NEW_ROOM}",
                shows="nobody can be invited there by the bridge, and names stay as they are",
            )
        )
    more = f", the first {len(stands)} looked at" if rooms > len(stands) else ""
    return results or [fine(f"agents look after their own rooms ({rooms}{more})")]


async def _power(subject: Subject, agent: Agent) -> bool | None:
    """Whether it could invite and change the room's state; None where it is not let in. Raises
    HomeserverUnavailable."""
    ghost = subject.homeserver.acting_as(agent.user_id)
    try:
        return await ghost.has_power(str(agent.room_id), give_up_after=0)
    except MatrixRequestError:
        return None
