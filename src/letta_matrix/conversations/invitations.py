"""Invites of our users into rooms: accepted from people who may use agents, else rejected."""

from collections.abc import Awaitable, Callable

import structlog
from mautrix.errors import MatrixRequestError, MForbidden

from letta_matrix.common.identifiers import persons
from letta_matrix.common.json_fields import Json
from letta_matrix.common.parts import part
from letta_matrix.conversations.dispatcher import Dispatcher
from letta_matrix.conversations.new_turns import sent_at
from letta_matrix.matrix.errors import is_refusal, refusal
from letta_matrix.matrix.events import corrected
from letta_matrix.matrix.homeserver import Homeserver
from letta_matrix.matrix.intent import Intent
from letta_matrix.store.outbox import Outbox
from letta_matrix.store.rooms import Rooms
from letta_matrix.store.turns import Outcome, Turn, TurnStore

log = structlog.get_logger()

_PAGE, _MOST = 50, 1_000
"""Events asked for at once, and looked through in all for what was said since an invite."""


@part
class Invitations:
    """Runs the turns of invites: the invited user joins, and what it is there for is kept. What
    people wrote meanwhile, as clients do that make a room and send the first message at once, is
    taken up in order.

    `entered` hears of the turn and of whom of us, before anybody is heard there: what it does may
    happen again. `look` learns what the room is, before anything that was said there is routed.
    """

    _homeserver: Homeserver
    _rooms: Rooms
    _turns: TurnStore
    _may_invite: Callable[[str, str], bool]
    _dispatcher: Dispatcher
    _outbox: Outbox
    _max_age: float
    _bot_user_id: str
    _entered: Callable[[Turn, Intent], Awaitable[None]]
    _look: Callable[[str, str], Awaitable[None]]

    async def run(self, turn: Turn, *, recovered: bool) -> None:
        """Join the room, or leave it; an invite that has been taken back is let go."""
        user_id = turn.prompt or ""
        intent = self._homeserver.acting_as(user_id)
        try:
            if not self._may_invite(turn.sender, user_id):
                # Also where a homeserver has accepted it in our stead (auto_accept_invites).
                await intent.leave(turn.room_id)
                log.info("invite rejected", user=user_id, room=turn.room_id, by=turn.sender)
                await self._turns.finish(turn, Outcome.DROPPED)
                return
            await _join(intent, turn.room_id)
            await self._rooms.learn(turn.room_id, lambda: self._people(intent, turn.room_id))
        except MatrixRequestError as error:
            if not is_refusal(error):
                raise
            log.info("invite not taken", user=user_id, room=turn.room_id, reason=refusal(error))
            await self._turns.finish(turn, Outcome.FAILED)
            return
        async with self._dispatcher.opening(turn):
            history = await _said_since(turn, intent)
            # Before the room is known: what cannot be looked at yet is not to be heard as if it
            # were no portal.
            await self._look(turn.room_id, user_id)
            people = self._rooms.people_in(turn.room_id) or ()
            await self._rooms.joined(
                turn.room_id, user_id, direct=len(people) <= 1, since=turn.sent_at
            )
            # What was talked about in the room that this one replaces goes on with the first words.
            await self._entered(turn, intent)
            await self._dispatcher.room_known(turn.room_id, history, turn.agent_id)
        await self._finish_answers(turn.room_id, intent)
        log.info("invite taken", user=user_id, room=turn.room_id, by=turn.sender)
        await self._turns.finish(turn, Outcome.ANSWERED)

    async def _finish_answers(self, room_id: str, intent: Intent) -> None:
        """Who was removed in the midst of an answer ends it on coming back."""
        since = self._homeserver.clock.now() - self._max_age
        for entry in await self._outbox.refused_in(room_id, intent.user_id, since):
            try:
                event_id = await intent.send(
                    room_id, "m.room.message", entry.content, entry.txn_id, look_first=True
                )
            except MatrixRequestError as error:
                log.info("an answer stays cut off", room=room_id, reason=str(error))
                return
            await self._outbox.confirm(entry, event_id)

    async def _people(self, intent: Intent, room_id: str) -> set[str]:
        return persons(await intent.joined_members(room_id), self._bot_user_id)

    async def give_up(self, turn: Turn) -> None:
        """Let an invite go that cannot be taken."""
        await self._turns.finish(turn, Outcome.FAILED)


async def _join(intent: Intent, room_id: str) -> None:
    try:
        await intent.join(room_id)
    except MForbidden:
        # A line may be asked in before its account has been made, which is made for that.
        if await intent.register() is False:
            raise
        await intent.join(room_id)


async def _said_since(invite: Turn, intent: Intent) -> list[Json]:
    """What a room's members said after an invite, oldest first, in its latest version; as far as
    the invited user may see it."""
    said: list[Json] = []
    before = ""
    while len(said) < _MOST:
        try:
            page = await intent.messages(invite.room_id, limit=_PAGE, before=before)
        except MatrixRequestError as error:
            log.info("a room cannot be read", room=invite.room_id, reason=str(error))
            break
        for event in page.events:
            if event.get("event_id") == invite.event_id:
                return said[::-1]
            # What became of the room meanwhile is looked at on coming.
            if "state_key" not in event:
                said.append(dict(corrected(event)))
        if not page.events or page.end in ("", before):
            break
        before = page.end
    return [event for event in said[::-1] if sent_at(event) >= invite.sent_at]
