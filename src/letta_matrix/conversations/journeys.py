"""How long messages take from stage to stage, and how their turns end."""

from collections import Counter
from dataclasses import dataclass
from enum import StrEnum

import structlog

from letta_matrix.common import clock
from letta_matrix.common.measures import TURN_BOUNDS, Spans
from letta_matrix.store.turns import Turn, TurnKind

log = structlog.get_logger()


class Stage(StrEnum):
    """What a turn has reached, in this order; some turns pass over some."""

    ADMITTED = "admitted"  # stored
    ASKED = "asked"  # given to its runtime
    FIRST_TEXT = "first_text"  # the first words have come from there
    FINAL = "final"  # all is said


_ORDER = [*Stage]


@dataclass(slots=True)
class _Journey:
    arrived: float
    at: float
    stage: int = -1
    outcome: str = ""


class Watcher:
    """Hears of each message's journey, and by itself does nothing. `since` and `arrived` are as
    `clock.now` tells it."""

    def began(self, turn: Turn, arrived: float) -> None: ...

    def reached(self, turn_id: str, stage: Stage, since: float) -> None: ...

    def used(self, turn_id: str, call_id: str, tool: str) -> None:
        """The agent calls a tool of its runtime."""

    def used_up(self, turn_id: str, call_id: str, *, ok: bool) -> None:
        """The tool has answered."""

    def ended(self, turn_id: str, outcome: str) -> None: ...


class Journeys:
    """Messages under way in this process, each from its arrival; what an earlier one has begun is
    not timed. `stages` are the spans since the stage before, `whole` those from arrival to end,
    `outcomes` counts how turns ended. `watcher` is told of each."""

    def __init__(self) -> None:
        self.stages, self.whole = Spans(*TURN_BOUNDS), Spans(*TURN_BOUNDS)
        self.outcomes = Counter[str]()
        self.watcher = Watcher()
        self._under_way: dict[str, _Journey] = {}

    def admitted(self, turn: Turn, arrived: float) -> None:
        """A turn is stored whose event has come in at `arrived` (`clock.now`)."""
        about = {"agent": turn.agent_id, "room": turn.room_id, "event_id": turn.event_id}
        log.debug("a turn begins", turn=turn.turn_id, kind=str(turn.kind), **about)
        if turn.kind is TurnKind.MESSAGE:
            self._under_way[turn.turn_id] = _Journey(arrived, arrived)
            self.watcher.began(turn, arrived)
            self.reached(turn.turn_id, Stage.ADMITTED)

    def reached(self, turn_id: str, stage: Stage) -> None:
        """A turn has come to a stage, now or before."""
        journey = self._under_way.get(turn_id)
        place = _ORDER.index(stage)
        if journey is None or place <= journey.stage:
            return
        now = clock.now()
        took = now - journey.at
        self.stages.add(took, stage)
        log.debug("a turn goes on", turn=turn_id, stage=str(stage), seconds=round(took, 3))
        self.watcher.reached(turn_id, stage, journey.at)
        journey.at, journey.stage = now, place

    def came_to(self, turn_id: str, outcome: str) -> None:
        """What is to be said last is known."""
        self.outcomes[outcome] += 1
        if (journey := self._under_way.get(turn_id)) is not None:
            journey.outcome = outcome

    def ended(self, turn_id: str) -> None:
        """Nothing is owed for a turn any more."""
        self.reached(turn_id, Stage.FINAL)
        if (journey := self._under_way.pop(turn_id, None)) is not None:
            self.whole.add(journey.at - journey.arrived)
            self.watcher.ended(turn_id, journey.outcome)
