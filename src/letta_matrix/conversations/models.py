"""Which agents' models fail now."""

from dataclasses import dataclass

from letta_matrix.common import clock

_FOR = 900.0
"""Seconds after which a failure that nobody has met again is told no more."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an agent's model failed last, in a line, and when (`clock.now`)."""

    reason: str
    at: float


class Models:
    """Remembers of each agent whether its model failed last."""

    def __init__(self) -> None:
        self._failures: dict[str, Failure] = {}

    def failed(self, agent_id: str, reason: str) -> None:
        """An agent's model failed, whether or not it is asked again."""
        self._failures[agent_id] = Failure(reason, clock.now())

    def answered(self, agent_id: str) -> None:
        """It has answered."""
        self._failures.pop(agent_id, None)

    @property
    def failing(self) -> dict[str, str]:
        """Why models failed in the last quarter of an hour, by agent id, the latest last."""
        recent = sorted(self._failures.items(), key=lambda one: one[1].at)
        return {
            agent_id: failure.reason
            for agent_id, failure in recent
            if clock.now() - failure.at < _FOR
        }
