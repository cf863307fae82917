"""Rooms with an agent, as the bridge would make them."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tests.browser.matrix_user import Json, MatrixUser
from tests.waiting import eventually

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


async def group(person: MatrixUser, others: dict[str, MatrixUser]) -> str:
    """A room of somebody's with several others in it, who get the names given."""
    for name, other in others.items():
        await other.set_name(name)
    room = await person.create_room("Kitchen", [other.user_id for other in others.values()])
    for other in others.values():
        await other.join(room)
    return room


async def newest(room: str, reader: MatrixUser, count: int) -> Json:
    """The content of the newest of so many messages, once the homeserver has them: the page
    shows them before."""

    async def messages() -> list[Json]:
        return await reader.messages(room)

    return (await eventually(messages, lambda found: len(found) == count))[0]["content"]


async def agents_space(owner: MatrixUser, rooms: list[str]) -> str:
    """The space that holds the agents' rooms."""
    space = await owner.create_room("Letta Agents", [], creation_content={"type": "m.space"})
    for room in rooms:
        await owner.state(space, "m.space.child", {"via": ["localhost"]}, room)
    return space
