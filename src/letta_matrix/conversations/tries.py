"""Trying a turn until it has an end."""

import asyncio
from collections import Counter
from collections.abc import Mapping
from typing import Protocol

import structlog

from letta_matrix.conversations.queues import is_answer
from letta_matrix.matrix.homeserver import HomeserverUnavailable
from letta_matrix.store.database import StoreUnavailable
from letta_matrix.store.turns import Turn, TurnKind, TurnStatus

log = structlog.get_logger()

TRIES = 5
"""How often a turn may fail that nothing from outside holds up."""

_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 10.0


class Runner(Protocol):
    """Takes turns of one kind to their end."""

    async def run(self, turn: Turn, *, recovered: bool) -> None:
        """Do it exactly once. `recovered`: an earlier try may have got somewhere."""
        ...

    async def give_up(self, turn: Turn) -> None:
        """End a turn that failed again and again, with a word to the person."""
        ...


class Tries:
    """Runs turns by their kind's runner, and gives up those whose own fault it is that they fail.
    An outage is nobody's fault: it is waited for without end."""

    def __init__(self, runners: Mapping[TurnKind, Runner], counters: Counter[str]) -> None:
        self._runners = runners
        self._counters = counters

    async def run(self, turn: Turn, *, recovered: bool) -> bool:
        """Take a turn to its end; False where it cannot even be given up. `recovered`: an
        earlier process has begun it."""
        pause, failures = _FIRST_PAUSE, 0
        while failures < TRIES and turn.status is not TurnStatus.DONE:
            try:
                await self._runners[turn.kind].run(turn, recovered=recovered)
            except Exception as error:
                if isinstance(error, StoreUnavailable):
                    # It waits as long as that takes, and no longer.
                    pause = _FIRST_PAUSE
                if not _waits(turn, error):
                    # One turn's fault must not stop the others.
                    failures += 1
                    log.error(
                        "a turn failed and is tried again",
                        turn=turn.turn_id,
                        attempt=failures,
                        exc_info=error,
                    )
            else:
                self._counters["turns_done"] += 1
                return True
            recovered = True
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)
        return turn.status is TurnStatus.DONE or await self._give_up(turn)

    async def _give_up(self, turn: Turn) -> bool:
        self._counters["turns_given_up"] += 1
        while True:
            try:
                await self._runners[turn.kind].give_up(turn)
            except Exception as error:
                if not _waits(turn, error):
                    log.error("a turn could not be ended", turn=turn.turn_id, exc_info=error)
                    return False
                await asyncio.sleep(_LONGEST_PAUSE)
            else:
                return True


def _waits(turn: Turn, error: Exception) -> bool:
    """Whether a turn fails for what is not its fault and passes; says so."""
    if isinstance(error, StoreUnavailable):
        log.error("a turn waits for the database", turn=turn.turn_id, reason=str(error))
        return True
    if not isinstance(error, HomeserverUnavailable):
        return False
    # At what the homeserver itself fails it may fail for ever. But what a person has decided is
    # not lost for that.
    if waits := not error.fails or is_answer(turn):
        log.error("a turn waits for the homeserver", turn=turn.turn_id, reason=str(error))
    return waits
