"""How long messages take from stage to stage, and how their turns end."""

from collections import Counter
from dataclasses import dataclass
from enum import StrEnum

from letta_matrix.common import clock
from letta_matrix.common.measures import TURN_BOUNDS, Spans


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


class Journeys:
    """Messages under way in this process, each from its arrival; what an earlier one has begun is
    not timed. `stages` are the spans since the stage before, `whole` those from arrival to end,
    `outcomes` counts how turns ended."""

    def __init__(self) -> None:
        self.stages, self.whole = Spans(*TURN_BOUNDS), Spans(*TURN_BOUNDS)
        self.outcomes = Counter[str]()
        self._under_way: dict[str, _Journey] = {}

    def admitted(self, turn_id: str, arrived: float) -> None:
        """A message is stored that has come in at `arrived` (`clock.now`)."""
        self._under_way[turn_id] = _Journey(arrived, arrived)
        self.reached(turn_id, Stage.ADMITTED)

    def reached(self, turn_id: str, stage: Stage) -> None:
        """A turn has come to a stage, now or before."""
        journey = self._under_way.get(turn_id)
        place = _ORDER.index(stage)
        if journey is None or place <= journey.stage:
            return
        now = clock.now()
        self.stages.add(now - journey.at, stage)
        journey.at, journey.stage = now, place

    def ended(self, turn_id: str) -> None:
        """Nothing is owed for a turn any more."""
        self.reached(turn_id, Stage.FINAL)
        if (journey := self._under_way.pop(turn_id, None)) is not None:
            self.whole.add(journey.at - journey.arrived)
