"""Makes the replies of turns, as their rooms take them."""

from letta_matrix.common.parts import part
from letta_matrix.config import Config
from letta_matrix.conversations.portal_reply import PortalReply
from letta_matrix.conversations.reply import Reply
from letta_matrix.matrix.homeserver import Homeserver, HomeserverUnavailable
from letta_matrix.portals.outgoing import PROFILE, outgoing, profile_of
from letta_matrix.portals.policy import PortalPolicy
from letta_matrix.store.agents import Agent
from letta_matrix.store.outbox import Outbox, OutboxEntry
from letta_matrix.store.turns import Turn


@part
class Replies:
    """One for each turn; in portals they are plain (`PortalReply`)."""

    _config: Config
    _homeserver: Homeserver
    _outbox: Outbox
    portals: PortalPolicy

    async def left_of(self, turn: Turn) -> list[OutboxEntry]:
        """What an earlier try has left of a turn's reply."""
        return await self._outbox.of_turn(turn.turn_id)

    def of_agent(self, turn: Turn, agent: Agent, entries: list[OutboxEntry] | None) -> Reply:
        """A reply of an agent, which an earlier try may have left `entries` of. Raises
        HomeserverUnavailable in a portal while the agent has no room of its own yet."""
        portal = self.portals.portal(turn.room_id)
        voice = self._homeserver.acting_as(self.portals.voice(agent, turn.room_id).user_id)
        if portal is None:
            return self.of_user(turn, voice.user_id, entries)
        if agent.room_id is None:
            raise HomeserverUnavailable("the agent's own room is not made yet")
        bridge = self.portals.bridges[portal.name]
        by_line = voice.user_id != agent.user_id
        return PortalReply(
            turn,
            voice,
            self._outbox,
            entries,
            (self._homeserver.acting_as(agent.user_id), agent.room_id),
            lambda text: outgoing(text, bridge.settings),
            {PROFILE: profile_of(agent)} if by_line else None,
        )

    def of_user(self, turn: Turn, user_id: str, entries: list[OutboxEntry] | None) -> Reply:
        """What one of us says for the bridge."""
        intent = self._homeserver.acting_as(user_id)
        return Reply(turn, intent, self._outbox, self._config.conversations.edit_interval, entries)
