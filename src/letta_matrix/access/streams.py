"""How much one holder of a token keeps open at a time."""

from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager

from letta_matrix.access.principal import Principal
from letta_matrix.access.refusals import TooOften

_RETRY_AFTER = 10.0


class OpenStreams:
    """Counts what is open for each principal; no more than `most` of what is called `kind`."""

    def __init__(self, most: int, kind: str) -> None:
        self._most = most
        self._kind = kind
        self._open: Counter[str] = Counter()

    @contextmanager
    def opened(self, principal: Principal) -> Generator[None]:
        """While it is open. Raises TooOften instead of opening one too many."""
        key = principal.key
        if self._open[key] >= self._most:
            reason = f"Your token has {self._most} {self._kind} open; close some."
            raise TooOften(_RETRY_AFTER, reason)
        self._open[key] += 1
        try:
            yield
        finally:
            self._open[key] -= 1
            if not self._open[key]:
                del self._open[key]
