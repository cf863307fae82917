"""Rooms with an agent, as the bridge would make them."""

import itertools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from matrix_user import MatrixUser

NewUser = Callable[[str], Awaitable[MatrixUser]]
_numbers = itertools.count(1)


@dataclass
class AgentRoom:
    """A room with one person and one agent."""

    id: str
    person: MatrixUser
    agent: MatrixUser


async def agent_room(person: MatrixUser, agent: MatrixUser, name: str) -> AgentRoom:
    """The agent gets its name and a room; the person has joined it."""
    await agent.set_name(name)
    room = await agent.create_room(
        f"{name} - Letta Agent Chat",
        [person.user_id],
        topic=f"{name} is a Letta agent. Write here and it answers.",
        room_alias_name=f"{agent.localpart}_{next(_numbers)}",
    )
    await person.join(room)
    return AgentRoom(room, person, agent)


async def agents_space(owner: MatrixUser, rooms: list[str]) -> str:
    """The space that holds the agents' rooms."""
    space = await owner.create_room("Letta Agents", [], creation_content={"type": "m.space"})
    for room in rooms:
        await owner.state(space, "m.space.child", {"via": ["localhost"]}, room)
    return space
