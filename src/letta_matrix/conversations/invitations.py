"""Invites of our users into rooms: accepted from people who may use agents, else rejected."""

from collections.abc import Awaitable, Callable

import structlog
from mautrix.errors import MatrixRequestError

from letta_matrix.matrix.errors import is_refusal, refusal
from letta_matrix.matrix.homeserver import Homeserver
from letta_matrix.matrix.identifiers import persons
from letta_matrix.matrix.intent import Intent
from letta_matrix.store.rooms import Rooms
from letta_matrix.store.turns import Outcome, Turn, TurnStore

log = structlog.get_logger()


class Invitations:
    """Runs the turns of invites: the invited user joins, and what it is there for is kept.

    `on_room` hears of each room that is joined.
    """

    def __init__(
        self,
        homeserver: Homeserver,
        rooms: Rooms,
        turns: TurnStore,
        may_invite: Callable[[str], bool],
        on_room: Callable[[str], Awaitable[None]],
        bot_user_id: str = "",
    ) -> None:
        self._homeserver = homeserver
        self._rooms = rooms
        self._turns = turns
        self._may_invite = may_invite
        self._on_room = on_room
        self._bot_user_id = bot_user_id

    async def run(self, turn: Turn, *, recovered: bool) -> None:
        """Join the room, or leave it; an invite that has been taken back is let go."""
        user_id = turn.prompt or ""
        intent = Intent(self._homeserver, user_id)
        try:
            if not self._may_invite(turn.sender):
                # Also where a homeserver has accepted it in our stead (auto_accept_invites).
                await intent.leave(turn.room_id)
                log.info("invite rejected", user=user_id, room=turn.room_id, by=turn.sender)
                await self._turns.finish(turn, Outcome.DROPPED)
                return
            await intent.join(turn.room_id)
            await self._rooms.learn(turn.room_id, lambda: self._people(intent, turn.room_id))
        except MatrixRequestError as error:
            if not is_refusal(error):
                raise
            log.info("invite not taken", user=user_id, room=turn.room_id, reason=refusal(error))
            await self._turns.finish(turn, Outcome.FAILED)
            return
        people = self._rooms.people_in(turn.room_id) or ()
        await self._rooms.joined(turn.room_id, user_id, direct=len(people) <= 1, since=turn.sent_at)
        log.info("invite taken", user=user_id, room=turn.room_id, by=turn.sender)
        await self._turns.finish(turn, Outcome.ANSWERED)
        await self._on_room(turn.room_id)

    async def _people(self, intent: Intent, room_id: str) -> set[str]:
        return persons(await intent.joined_members(room_id), self._bot_user_id)

    async def give_up(self, turn: Turn) -> None:
        """Let an invite go that cannot be taken."""
        await self._turns.finish(turn, Outcome.FAILED)
