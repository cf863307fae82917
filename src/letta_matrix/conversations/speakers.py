"""Makes the replies of turns, as their rooms take them, and brings them to their end."""

import structlog
from mautrix.errors import MatrixRequestError

from letta_matrix.common.parts import part
from letta_matrix.config import Config
from letta_matrix.conversations import notices
from letta_matrix.conversations.portal_reply import PortalReply
from letta_matrix.conversations.reply import Reply
from letta_matrix.conversations.voices import Voices
from letta_matrix.matrix.errors import refusal
from letta_matrix.matrix.homeserver import Homeserver, HomeserverUnavailable
from letta_matrix.matrix.transactions import txn_id
from letta_matrix.portals.outgoing import PROFILE, outgoing, profile_of
from letta_matrix.portals.policy import PortalPolicy
from letta_matrix.store.agents import Agent, AgentDirectory, AgentStatus
from letta_matrix.store.outbox import Outbox, OutboxEntry
from letta_matrix.store.rooms import Rooms
from letta_matrix.store.turns import Outcome, Turn, TurnStatus, TurnStore

log = structlog.get_logger()


@part
class Speaker:
    """One reply for each turn; in portals they are plain (`PortalReply`)."""

    _config: Config
    _homeserver: Homeserver
    _directory: AgentDirectory
    _rooms: Rooms
    _turns: TurnStore
    _outbox: Outbox
    _voices: Voices
    portals: PortalPolicy

    async def reply(self, turn: Turn, *, recovered: bool) -> Reply | None:
        """What the bridge itself answers to a turn: by the turn's agent, else the bot, else any
        agent of the room; None where nobody is left to speak. Raises StoreUnavailable."""
        entries = await self.left_of(turn, recovered=recovered)
        if self.portals.bridge_at(turn.room_id, turn.sender) is not None:
            portal, agent = self.portals.portal(turn.room_id), self._agent_of(turn)
            if agent is None and portal is not None:
                agent = self.portals.agent_of(portal)
            return self.of_agent(turn, agent, entries) if agent is not None else None
        user_id = self._user_for(turn)
        return self._of_user(turn, user_id, entries) if user_id is not None else None

    async def left_of(self, turn: Turn, *, recovered: bool) -> list[OutboxEntry] | None:
        """What stands in the outbox of a turn's reply: what is frozen from the start, or was by an
        earlier try (`recovered`)."""
        owed = recovered or turn.status is TurnStatus.REPLYING
        return await self._outbox.of_turn(turn.turn_id) if owed else None

    def of_agent(self, turn: Turn, agent: Agent, entries: list[OutboxEntry] | None) -> Reply:
        """A reply of an agent, of which `entries` are left. Raises HomeserverUnavailable in a
        portal while the agent has no room of its own yet."""
        bridge = self.portals.bridge_at(turn.room_id, turn.sender)
        if bridge is None:
            return self._of_user(turn, agent.user_id, entries)
        if agent.room_id is None:
            raise HomeserverUnavailable("the agent's own room is not made yet")
        voice = self.portals.voice(agent, turn.room_id).user_id
        return PortalReply(
            turn,
            self._homeserver.acting_as(voice),
            self._outbox,
            entries,
            (self._homeserver.acting_as(agent.user_id), agent.room_id),
            lambda text: outgoing(text, bridge.settings),
            {PROFILE: profile_of(agent)} if voice != agent.user_id else None,
            lambda: self.portals.shows_attention(turn.room_id),
        )

    async def deliver(self, turn: Turn, reply: Reply) -> None:
        """Send what is owed for a turn and end it; where that may not be said in its room,
        whoever wrote is told. Raises HomeserverUnavailable."""
        sent = await reply.deliver()
        is_talk = self.portals.bridge_at(turn.room_id, turn.sender) is not None
        if reply.is_cut_off and is_talk:
            await self._tell_not_sent(turn)
        elif reply.is_cut_off:
            await self._voices.refused(turn, reply.intent.user_id)
        await self._turns.finish(turn, Outcome.FAILED if reply.refused else None, sent)

    async def _tell_not_sent(self, turn: Turn) -> None:
        """The homeserver does not take an agent's words to another network: it says so at home."""
        agent = self._directory.get(turn.agent_id)
        if agent is None or agent.room_id is None:
            return
        why = "the homeserver does not take it in the talk's room"
        text = notices.about_contact(turn.sender) + notices.undelivered(why)
        ghost = self._homeserver.acting_as(agent.user_id)
        cause = txn_id(turn.turn_id, agent.user_id, "not sent")
        try:
            await notices.say(ghost, agent.room_id, text, cause, agent_id=agent.agent_id)
        except MatrixRequestError as error:
            log.warning("a word is refused", room=agent.room_id, reason=refusal(error))

    async def keep_silent(self, turn: Turn, outcome: Outcome) -> None:
        """End a turn without a word."""
        await self._turns.finish(turn, outcome)

    def _of_user(self, turn: Turn, user_id: str, entries: list[OutboxEntry] | None) -> Reply:
        intent = self._homeserver.acting_as(user_id)
        return Reply(turn, intent, self._outbox, self._config.conversations.edit_interval, entries)

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
