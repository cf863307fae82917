"""Which agents' models fail now."""

from letta_matrix.common import clock

_FOR = 900.0
"""Seconds after which a failure that nobody has met again is told no more."""


class Models:
    """Remembers of each agent whether its model failed last."""

    def __init__(self) -> None:
        # Why, in a line, and when.
        self._failures: dict[str, tuple[str, float]] = {}

    def failed(self, agent_id: str, reason: str) -> None:
        """An agent's model failed, whether or not it is asked again."""
        self._failures[agent_id] = reason, clock.now()

    def answered(self, agent_id: str) -> None:
        """It has answered."""
        self._failures.pop(agent_id, None)

    @property
    def failing(self) -> dict[str, str]:
        """Why models failed in the last quarter of an hour, by agent id, the latest last."""
        latest_last = sorted(self._failures.items(), key=lambda one: one[1][1])
        return {who: why for who, (why, at) in latest_last if clock.now() - at < _FOR}
