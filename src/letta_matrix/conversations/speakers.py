"""Who of us speaks where no agent has been asked anything."""

from letta_matrix.store.agents import AgentDirectory, AgentStatus
from letta_matrix.store.rooms import Rooms
from letta_matrix.store.turns import Turn


def speaker_of(turn: Turn, directory: AgentDirectory, rooms: Rooms, bot: str) -> str | None:
    """The user that answers a turn for the bridge: its agent, else the bot, else any agent of
    the room. None where the agent is gone."""
    if turn.agent_id:
        agent = directory.get(turn.agent_id)
        return None if agent is None or agent.status is AgentStatus.REMOVED else agent.user_id
    ours = rooms.ours_in(turn.room_id)
    if bot in ours:
        return bot
    # The bot is not in every room that an agent was invited into.
    found = (directory.by_user(user) for user in ours)
    here = (one.user_id for one in found if one and one.status is AgentStatus.ACTIVE)
    return next(here, bot)
