"""Runs the turns of rooms that are encrypted or replaced from now on."""

from collections.abc import Awaitable, Callable

import structlog
from mautrix.errors import MatrixRequestError

from letta_matrix.common.parts import part
from letta_matrix.conversations.encryption import Encryption
from letta_matrix.conversations.room_moves import RoomMoves
from letta_matrix.matrix.errors import refusal
from letta_matrix.matrix.homeserver import Homeserver, HomeserverUnavailable
from letta_matrix.matrix.intent import Intent
from letta_matrix.store.agents import AgentDirectory
from letta_matrix.store.rooms import Rooms
from letta_matrix.store.turns import Outcome, Turn, TurnStore

log = structlog.get_logger()


@part
class RoomTurns:
    """Does what a room's new state asks of our users there, and what coming into it does. `on_room`
    hears of each room that becomes known by a tool."""

    _homeserver: Homeserver
    _directory: AgentDirectory
    _rooms: Rooms
    _turns: TurnStore
    _encryption: Encryption
    _moves: RoomMoves
    _on_room: Callable[[str], Awaitable[None]]
    _is_portal: Callable[[str], bool]

    async def run(self, turn: Turn, *, recovered: bool) -> None:
        """Do it; everything in it may be done twice. Raises HomeserverUnavailable."""
        if turn.prompt == "m.room.tombstone":
            for intent, room_id in await self._moves.follow(turn):
                await self._encryption.entered(room_id, intent, turn.event_id)
        elif (user_id := self._speaker(turn)) is not None:
            try:
                intent = self._homeserver.acting_as(user_id)
                await self._encryption.tell(turn.room_id, intent, turn.event_id)
            except MatrixRequestError as error:
                log.info("not told of encryption", room=turn.room_id, reason=refusal(error))
        await self._turns.finish(turn, Outcome.ANSWERED)

    async def entered(self, turn: Turn, intent: Intent) -> None:
        """One of us has come into a room by an invitation. Raises HomeserverUnavailable."""
        if self._is_portal(turn.room_id):
            return
        await self._moves.entered(turn, intent)
        await self._encryption.entered(turn.room_id, intent, turn.event_id)

    async def entered_by_tool(self, intent: Intent, room_id: str, event_id: str) -> None:
        """One of us has come into a room by a tool, which is to succeed without a word there."""
        await self._on_room(room_id)
        try:
            await self._encryption.entered(room_id, intent, event_id)
        except HomeserverUnavailable as error:
            log.warning("not told of encryption", room=room_id, reason=str(error))

    async def give_up(self, turn: Turn) -> None:
        """Leave it as it is."""
        await self._turns.finish(turn, Outcome.FAILED)

    def _speaker(self, turn: Turn) -> str | None:
        """One of us in the room, the one whose room it is if there is one."""
        if (agent := self._directory.get(turn.agent_id)) is not None:
            return agent.user_id
        return next(iter(self._rooms.ours_in(turn.room_id)), None)
