"""Rooms with an agent, as the bridge would make them."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tests.browser.matrix_user import MatrixUser

NewUser = Callable[[str], Awaitable[MatrixUser]]


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
        room_alias_name=agent.localpart,
    )
    await person.join(room)
    return AgentRoom(room, person, agent)


async def agents_space(owner: MatrixUser, rooms: list[str]) -> str:
    """The space that holds the agents' rooms."""
    space = await owner.create_room("Letta Agents", [], creation_content={"type": "m.space"})
    for room in rooms:
        await owner.state(space, "m.space.child", {"via": ["localhost"]}, room)
    return space
