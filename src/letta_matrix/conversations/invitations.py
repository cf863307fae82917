"""Invites of our users into rooms: accepted from people who may use agents, else rejected."""

from collections.abc import Awaitable, Callable

import structlog
from mautrix.errors import MatrixRequestError

from letta_matrix.matrix.errors import is_refusal, refusal
from letta_matrix.matrix.homeserver import Homeserver, HomeserverUnavailable
from letta_matrix.matrix.intent import Intent
from letta_matrix.store.rooms import Rooms
from letta_matrix.store.turns import Outcome, Turn, TurnStore

log = structlog.get_logger()

_TWO = 2


class Invitations:
    """Runs the turns of invites: the invited user joins, and what it is there for is kept.

    `on_room` hears of each room that is joined, `entered` also of the turn and of whom of us,
    before the turn ends: what it does may happen again.
    """

    def __init__(
        self,
        homeserver: Homeserver,
        rooms: Rooms,
        turns: TurnStore,
        may_invite: Callable[[str], bool],
        on_room: Callable[[str], Awaitable[None]],
        entered: Callable[[Turn, Intent], Awaitable[None]] | None = None,
    ) -> None:
        self._homeserver = homeserver
        self._rooms = rooms
        self._turns = turns
        self._may_invite = may_invite
        self._on_room = on_room
        self._entered = entered

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
            members = await intent.members(turn.room_id)
        except MatrixRequestError as error:
            if not is_refusal(error):
                raise
            log.info("invite not taken", user=user_id, room=turn.room_id, reason=refusal(error))
            await self._turns.finish(turn, Outcome.FAILED)
            return
        await self._rooms.joined(
            turn.room_id, user_id, direct=len(members) <= _TWO, since=turn.sent_at
        )
        if self._entered is not None:
            await self._entered(turn, intent)
        log.info("invite taken", user=user_id, room=turn.room_id, by=turn.sender)
        await self._turns.finish(turn, Outcome.ANSWERED)
        await self._on_room(turn.room_id)

    async def look_again(self, room_id: str) -> None:
        """Somebody came or went: whether our user there is still to be talked to alone."""
        for user_id, direct in list(self._rooms.ours_in(room_id).items()):
            try:
                members = await Intent(self._homeserver, user_id).members(room_id)
            except (MatrixRequestError, HomeserverUnavailable) as error:
                log.debug("a room cannot be looked at", room=room_id, reason=str(error))
                return
            if direct and len(members) > _TWO:
                await self._rooms.not_alone(room_id, user_id)

    async def give_up(self, turn: Turn) -> None:
        """Let an invite go that cannot be taken."""
        await self._turns.finish(turn, Outcome.FAILED)
