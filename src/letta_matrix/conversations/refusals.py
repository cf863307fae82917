"""Tells those who are left unanswered why: once in a room, until they are answered again."""

import structlog

from letta_matrix.conversations import notices
from letta_matrix.conversations.reply import Notice
from letta_matrix.conversations.speakers import Speaker
from letta_matrix.store.turns import Outcome, Turn, TurnStatus

log = structlog.get_logger()


class Refusals:
    """Takes turns that were refused to their end, with a word; no agent hears of them."""

    def __init__(self, speaker: Speaker, word: str = notices.OVER_BUDGET) -> None:
        self._speaker = speaker
        self._word = word

    async def run(self, turn: Turn, *, recovered: bool) -> None:
        """Say it exactly once. `recovered`: an earlier try may have said it."""
        reply = await self._speaker.reply(turn, recovered=recovered)
        if reply is None:
            await self.give_up(turn)
            return
        log.info("left unanswered", person=turn.sender, room=turn.room_id, why=str(turn.kind))
        if turn.status is not TurnStatus.REPLYING:
            await reply.freeze("", Notice(self._word), Outcome.DROPPED)
        await self._speaker.deliver(turn, reply)

    async def give_up(self, turn: Turn) -> None:
        """End it without a word."""
        await self._speaker.keep_silent(turn, Outcome.DROPPED)
