"""A sign to people who write to an agent that is paused where they write."""

import structlog
from mautrix.errors import MatrixRequestError

from letta_matrix.common import clock
from letta_matrix.matrix.errors import refusal
from letta_matrix.matrix.homeserver import Homeserver
from letta_matrix.matrix.transactions import txn_id
from letta_matrix.store.agents import AgentDirectory
from letta_matrix.store.turns import Outcome, Turn, TurnStore

log = structlog.get_logger()

PAUSED = "⏸️"
"""The reaction to a message that an agent leaves unanswered because it is paused there."""

_AGAIN = 3600.0
_MOST = 10_000


class Pauses:
    """Runs the turns of such messages: each person sees it once an hour in a room, as those who
    pause an agent do so to talk among themselves."""

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
