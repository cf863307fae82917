"""Tells people that they are over their budget: once in a room, until they are not."""

import structlog

from letta_matrix.conversations import notices
from letta_matrix.conversations.commands.services import CommandServices
from letta_matrix.conversations.reply import Notice, Reply
from letta_matrix.conversations.speakers import speaker_of
from letta_matrix.matrix.homeserver import Homeserver
from letta_matrix.matrix.intent import Intent
from letta_matrix.store.turns import Outcome, Turn, TurnStatus

log = structlog.get_logger()


class Refusals:
    """Takes turns that were refused to their end; no agent hears of them."""

    def __init__(self, homeserver: Homeserver, services: CommandServices) -> None:
        self._homeserver = homeserver
        self._services = services

    async def run(self, turn: Turn, *, recovered: bool) -> None:
        """Say it exactly once. `recovered`: an earlier try may have said it."""
        services, config = self._services, self._services.config
        speaker = speaker_of(turn, services.directory, services.rooms, config.bot_user_id)
        if speaker is None:
            await self.give_up(turn)
            return
        log.info("a person asks too much at once", person=turn.sender, room=turn.room_id)
        entries = await services.outbox.of_turn(turn.turn_id) if recovered else None
        intent = Intent(self._homeserver, speaker)
        interval = config.conversations.edit_interval
        reply = Reply(turn, intent, services.outbox, interval, entries)
        if turn.status is not TurnStatus.REPLYING:
            await reply.freeze("", Notice(notices.OVER_BUDGET), Outcome.DROPPED)
        sent = await reply.deliver()
        await services.turns.finish(turn, Outcome.FAILED if reply.refused else None, sent)

    async def give_up(self, turn: Turn) -> None:
        """End it without a word."""
        await self._services.turns.finish(turn, Outcome.DROPPED)
