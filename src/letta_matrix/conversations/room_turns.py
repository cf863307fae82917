"""Runs the turns of rooms that are encrypted or replaced from now on."""

from collections.abc import Awaitable, Callable
from dataclasses import replace

import structlog
from mautrix.errors import MatrixRequestError

from letta_matrix.common.identifiers import room_alias
from letta_matrix.common.parts import part
from letta_matrix.config import Config
from letta_matrix.conversations import notices
from letta_matrix.conversations.room_moves import RoomMoves
from letta_matrix.matrix.errors import refusal
from letta_matrix.matrix.homeserver import Homeserver, HomeserverUnavailable
from letta_matrix.matrix.intent import Intent
from letta_matrix.matrix.transactions import txn_id
from letta_matrix.matrix.verbatim import link
from letta_matrix.store.agents import ENCRYPTED, Agent, AgentDirectory
from letta_matrix.store.rooms import Rooms
from letta_matrix.store.turns import Outcome, Turn, TurnStore

log = structlog.get_logger()


@part
class RoomTurns:
    """Does what a room's new state asks of our users there, and what coming into it does. `on_room`
    hears of each room that becomes known by a tool."""

    _config: Config
    _homeserver: Homeserver
    _directory: AgentDirectory
    _rooms: Rooms
    _turns: TurnStore
    _moves: RoomMoves
    _on_room: Callable[[str], Awaitable[None]]
    _is_portal: Callable[[str], bool]

    async def run(self, turn: Turn, *, recovered: bool) -> None:
        """Do it; everything in it may be done twice. Raises HomeserverUnavailable."""
        if turn.prompt == "m.room.tombstone":
            for intent, room_id in await self._moves.follow(turn):
                await self._tell(room_id, intent, turn.event_id)
        elif (user_id := self._speaker(turn)) is not None:
            intent = self._homeserver.acting_as(user_id)
            await self._tell(turn.room_id, intent, turn.event_id, is_encrypted=True)
        await self._turns.finish(turn, Outcome.ANSWERED)

    async def entered(self, turn: Turn, intent: Intent) -> None:
        """One of us has come into a room by an invitation. Raises HomeserverUnavailable."""
        if self._is_portal(turn.room_id):
            return
        await self._moves.entered(turn, intent)
        await self._tell(turn.room_id, intent, turn.event_id)

    async def entered_by_tool(self, intent: Intent, room_id: str, event_id: str) -> None:
        """One of us has come into a room by a tool, which is to succeed without a word there."""
        await self._on_room(room_id)
        try:
            await self._tell(room_id, intent, event_id)
        except HomeserverUnavailable as error:
            log.warning("not told of encryption", room=room_id, reason=str(error))

    async def give_up(self, turn: Turn) -> None:
        """Leave it as it is."""
        await self._turns.finish(turn, Outcome.FAILED)

    async def _tell(
        self, room_id: str, intent: Intent, event_id: str, *, is_encrypted: bool = False
    ) -> None:
        """Say as one of us, once for each event, that nothing is read in a room, and where it is,
        if it is encrypted. Raises HomeserverUnavailable."""
        try:
            if not is_encrypted:
                state = await intent.state(room_id, "m.room.encryption")
                if not state.get("algorithm"):
                    return
            agent = self._directory.by_user(intent.user_id)
            if agent is not None and agent.room_id == room_id:
                await self._directory.change([agent.agent_id], _encrypted)
            text = notices.encrypted(_elsewhere(agent, room_id, self._config.homeserver.domain))
            cause = txn_id(event_id, intent.user_id, "encrypted")
            agent_id = agent.agent_id if agent else ""
            await notices.say(intent, room_id, text, cause, agent_id=agent_id)
        except MatrixRequestError as error:
            log.info("not told of encryption", room=room_id, reason=refusal(error))

    def _speaker(self, turn: Turn) -> str | None:
        """One of us in the room, the one whose room it is if there is one."""
        if (agent := self._directory.get(turn.agent_id)) is not None:
            return agent.user_id
        return next(iter(self._rooms.ours_in(turn.room_id)), None)


def _encrypted(agent: Agent) -> Agent:
    return replace(agent, applied={**agent.applied, ENCRYPTED: True})


def unreadable(agent: Agent, room_id: str, domain: str) -> str:
    """What answers an encrypted message."""
    if agent.room_id in (None, room_id):
        return notices.UNREADABLE
    return notices.encrypted(_elsewhere(agent, room_id, domain))


def _elsewhere(agent: Agent | None, room_id: str, domain: str) -> str:
    """Where somebody is read who is not in a room, as Markdown: an agent in its own room."""
    if agent is None or agent.room_id in (None, room_id):
        return "a room without encryption"
    return link("my own room", room_alias(agent.agent_id, domain)) + ", or one without encryption"
