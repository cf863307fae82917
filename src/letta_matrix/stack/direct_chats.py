"""Lets clients of the embedded homeserver's owner show agents' rooms as chats with the agents."""

from collections.abc import Mapping
from typing import Any, cast

from letta_matrix.config import Config
from letta_matrix.stack.bridge_store import database_of


async def rooms_of_agents(config: Config) -> dict[str, str]:
    """The own room of each agent there is, by the agent's user id.

    The bridge may have its database open meanwhile. Raises StackError.
    """
    from letta_matrix.store.agents import AgentDirectory, AgentStatus

    async with database_of(config, "the agents' rooms are not known") as database:
        directory = AgentDirectory(database)
        await directory.load()
    here = [agent for agent in directory.all() if agent.status is AgentStatus.ACTIVE]
    return {agent.user_id: agent.room_id for agent in here if agent.room_id is not None}


def with_rooms(content: Mapping[str, Any], rooms: Mapping[str, str]) -> dict[str, Any]:
    """The content of `m.direct` (spec: Direct Messaging) with these rooms by user id, too."""
    direct = dict(content)
    for user_id, room_id in rooms.items():
        known: object = direct.get(user_id)
        listed = cast("list[object]", known) if isinstance(known, list) else []
        if room_id not in listed:
            direct[user_id] = [room_id, *listed]
    return direct
