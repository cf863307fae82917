"""How often somebody may do something."""

_FEW = 1_000


class RateLimit:
    """A token bucket for each key: `per_minute` calls at once, then one whenever a token has
    dropped in again.

    Times are seconds of any clock that never goes back. Buckets that are full again are forgotten.
    """

    def __init__(self, per_minute: int) -> None:
        self._size = float(per_minute)
        self._per_second = per_minute / 60
        self._buckets: dict[str, tuple[float, float]] = {}
        self._sweep_at = _FEW

    def take(self, key: str, now: float) -> float:
        """Take a token; 0, or after how many seconds there is one again."""
        tokens = self._tokens(key, now)
        taken = tokens >= 1
        if len(self._buckets) >= self._sweep_at:
            self._sweep(now)
        self._buckets[key] = (tokens - taken, now)
        return 0.0 if taken else (1 - tokens) / self._per_second

    def put_back(self, key: str) -> None:
        """Give back a token that was taken and not used up."""
        if key in self._buckets:
            tokens, then = self._buckets[key]
            self._buckets[key] = (tokens + 1, then)

    def _tokens(self, key: str, now: float) -> float:
        tokens, then = self._buckets.get(key, (self._size, now))
        return min(self._size, tokens + (now - then) * self._per_second)

    def _sweep(self, now: float) -> None:
        used = {key: at for key, at in self._buckets.items() if self._tokens(key, now) < self._size}
        self._buckets = used
        # As rarely as they double: a sweep costs as much as there are.
        self._sweep_at = max(_FEW, 2 * len(used))
