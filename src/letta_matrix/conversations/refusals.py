"""Tells those who are left unanswered why: once in a room, until they are answered again."""

import structlog

from letta_matrix.conversations import notices
from letta_matrix.conversations.commands.services import CommandServices
from letta_matrix.conversations.reply import Notice
from letta_matrix.conversations.speakers import deliver_for_bridge, reply_for_bridge
from letta_matrix.matrix.homeserver import Homeserver
from letta_matrix.store.turns import Outcome, Turn, TurnStatus

log = structlog.get_logger()


class Refusals:
    """Takes turns that were refused to their end, with a word; no agent hears of them."""

    def __init__(
        self, homeserver: Homeserver, services: CommandServices, word: str = notices.OVER_BUDGET
    ) -> None:
        self._homeserver = homeserver
        self._services = services
        self._word = word

    async def run(self, turn: Turn, *, recovered: bool) -> None:
        """Say it exactly once. `recovered`: an earlier try may have said it."""
        services = self._services
        entries = await services.outbox.of_turn(turn.turn_id) if recovered else None
        reply = reply_for_bridge(turn, self._homeserver, services, entries)
        if reply is None:
            await self.give_up(turn)
            return
        log.info("left unanswered", person=turn.sender, room=turn.room_id, why=str(turn.kind))
        if turn.status is not TurnStatus.REPLYING:
            await reply.freeze("", Notice(self._word), Outcome.DROPPED)
        await deliver_for_bridge(turn, reply, services)

    async def give_up(self, turn: Turn) -> None:
        """End it without a word."""
        await self._services.turns.finish(turn, Outcome.DROPPED)
