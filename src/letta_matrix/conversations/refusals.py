"""Tells those who are left unanswered why: by a word, or by a sign where an agent is paused."""

import structlog
from mautrix.errors import MatrixRequestError

from letta_matrix.common import clock
from letta_matrix.common.parts import part
from letta_matrix.conversations.reply import Notice
from letta_matrix.conversations.speakers import Speaker
from letta_matrix.matrix.errors import refusal
from letta_matrix.matrix.homeserver import Homeserver
from letta_matrix.matrix.transactions import txn_id
from letta_matrix.store.agents import AgentDirectory
from letta_matrix.store.turns import Outcome, Turn, TurnStatus, TurnStore

log = structlog.get_logger()

PAUSED = "⏸️"
"""The reaction to a message that an agent leaves unanswered because it is paused there."""

_AGAIN = 3600.0
_MOST = 10_000


@part
class Refusals:
    """Takes turns that were refused to their end, with a word; no agent hears of them."""

    _speaker: Speaker
    _word: str

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


class Pauses:
    """Runs the turns of messages to paused agents by a sign: each person sees it once an hour in a
    room, as those who pause an agent do so to talk among themselves."""

    def __init__(self, homeserver: Homeserver, directory: AgentDirectory, turns: TurnStore) -> None:
        self._homeserver = homeserver
        self._directory = directory
        self._turns = turns
        self._shown: dict[tuple[str, str, str], float] = {}

    async def run(self, turn: Turn, *, recovered: bool) -> None:
        """React once; a second reaction to the same message would be refused. Raises
        HomeserverUnavailable."""
        agent = self._directory.get(turn.agent_id)
        case = (turn.agent_id, turn.room_id, turn.sender)
        if agent is not None and clock.now() - self._shown.get(case, -_AGAIN) >= _AGAIN:
            cause = txn_id(turn.event_id, turn.agent_id, "paused")
            try:
                ghost = self._homeserver.acting_as(agent.user_id)
                await ghost.react(turn.room_id, turn.event_id, PAUSED, cause)
            except MatrixRequestError as error:
                log.info("a reaction is refused", room=turn.room_id, reason=refusal(error))
            if len(self._shown) >= _MOST:
                self._shown.clear()
            self._shown[case] = clock.now()
        await self._turns.finish(turn, Outcome.DROPPED)

    async def give_up(self, turn: Turn) -> None:
        """Leave it without a sign."""
        await self._turns.finish(turn, Outcome.FAILED)
