"""How often each agent may call tools."""


class RateLimit:
    """A token bucket for each key: `per_minute` calls at once, then one whenever a token has
    dropped in again."""

    def __init__(self, per_minute: int) -> None:
        self._size = float(per_minute)
        self._per_second = per_minute / 60
        self._buckets: dict[str, tuple[float, float]] = {}

    def take(self, key: str, now: float) -> float:
        """Take a token at the time `now` (seconds of any clock that never goes back); 0, or
        after how many seconds there is one again."""
        tokens, then = self._buckets.get(key, (self._size, now))
        tokens = min(self._size, tokens + (now - then) * self._per_second)
        taken = tokens >= 1
        self._buckets[key] = (tokens - taken, now)
        return 0.0 if taken else (1 - tokens) / self._per_second
