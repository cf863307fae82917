"""Who of us answers where no agent has been asked anything."""

from letta_matrix.conversations.commands.services import CommandServices
from letta_matrix.conversations.reply import Reply
from letta_matrix.matrix.homeserver import Homeserver
from letta_matrix.matrix.intent import Intent
from letta_matrix.store.agents import AgentStatus
from letta_matrix.store.outbox import OutboxEntry
from letta_matrix.store.turns import Outcome, Turn


def reply_for_bridge(
    turn: Turn, homeserver: Homeserver, services: CommandServices, entries: list[OutboxEntry] | None
) -> Reply | None:
    """What answers a turn for the bridge; `entries` are those that an earlier try left. None where
    nobody is left to speak."""
    sender = _speaker(turn, services)
    if sender is None:
        return None
    interval = services.config.conversations.edit_interval
    return Reply(turn, Intent(homeserver, sender), services.outbox, interval, entries)


async def deliver_for_bridge(turn: Turn, reply: Reply, services: CommandServices) -> None:
    """Send what is owed for such a turn and end it; where that may not be said in its room,
    whoever wrote is told. Raises HomeserverUnavailable."""
    sent = await reply.deliver()
    if reply.is_cut_off:
        await services.voices.refused(turn, reply.intent.user_id)
    await services.turns.finish(turn, Outcome.FAILED if reply.refused else None, sent)


def _speaker(turn: Turn, services: CommandServices) -> str | None:
    """The turn's agent, else the bot, else any agent of the room; None where the agent is gone."""
    directory, bot = services.directory, services.config.bot_user_id
    if turn.agent_id:
        agent = directory.get(turn.agent_id)
        return None if agent is None or agent.status is AgentStatus.REMOVED else agent.user_id
    ours = services.rooms.ours_in(turn.room_id)
    if bot in ours:
        return bot
    # The bot is not in every room that an agent was invited into.
    found = (directory.by_user(user) for user in ours)
    here = (one.user_id for one in found if one and one.status is AgentStatus.ACTIVE)
    return next(here, bot)
