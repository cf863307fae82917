"""Who of us answers where no agent has been asked anything."""

from letta_matrix.common.parts import part
from letta_matrix.config import Config
from letta_matrix.conversations.replies import Replies
from letta_matrix.conversations.reply import Reply
from letta_matrix.conversations.voices import Voices
from letta_matrix.store.agents import Agent, AgentDirectory, AgentStatus
from letta_matrix.store.rooms import Rooms
from letta_matrix.store.turns import Outcome, Turn, TurnStore


@part
class Speaker:
    """Says what the bridge itself answers: by the turn's agent, else the bot, else any agent of
    the room."""

    _config: Config
    _directory: AgentDirectory
    _rooms: Rooms
    _turns: TurnStore
    _voices: Voices
    _replies: Replies

    async def reply(self, turn: Turn, *, recovered: bool) -> Reply | None:
        """What answers a turn; `recovered`: an earlier try may have left something of it. None
        where nobody is left to speak. Raises StoreUnavailable."""
        entries = await self._replies.left_of(turn) if recovered else None
        if (portal := self._replies.portals.portal(turn.room_id)) is not None:
            agent = self._agent_of(turn) or self._replies.portals.agent_of(portal)
            return self._replies.of_agent(turn, agent, entries) if agent is not None else None
        user_id = self._user_for(turn)
        return self._replies.of_user(turn, user_id, entries) if user_id is not None else None

    async def deliver(self, turn: Turn, reply: Reply) -> None:
        """Send what is owed for a turn and end it; where that may not be said in its room,
        whoever wrote is told. Raises HomeserverUnavailable."""
        sent = await reply.deliver()
        if reply.is_cut_off and self._replies.portals.portal(turn.room_id) is None:
            await self._voices.refused(turn, reply.intent.user_id)
        await self._turns.finish(turn, Outcome.FAILED if reply.refused else None, sent)

    async def keep_silent(self, turn: Turn, outcome: Outcome) -> None:
        """End a turn without a word."""
        await self._turns.finish(turn, outcome)

    def _agent_of(self, turn: Turn) -> Agent | None:
        agent = self._directory.get(turn.agent_id)
        return agent if agent is not None and agent.status is not AgentStatus.REMOVED else None

    def _user_for(self, turn: Turn) -> str | None:
        """Whose voice it is; None where the agent is gone."""
        if turn.agent_id:
            agent = self._agent_of(turn)
            return agent.user_id if agent is not None else None
        ours, bot = self._rooms.ours_in(turn.room_id), self._config.bot_user_id
        if bot in ours:
            return bot
        # The bot is not in every room that an agent was invited into.
        found = (self._directory.by_user(user) for user in ours)
        here = (one.user_id for one in found if one and one.status is AgentStatus.ACTIVE)
        return next(here, bot)
