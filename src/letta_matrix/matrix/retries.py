"""Requests that are tried again: whether it goes on too long, and who must hear of it."""

import re
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import unquote

import structlog
from mautrix.errors import MatrixRequestError, MForbidden, MNotFound

from letta_matrix.common import clock

log = structlog.get_logger()

_LONG = 30.0
_MOST_FAILURES = 8
_ROOM = re.compile(r"/(?:rooms|join)/([^/]+)")
_WORD = re.compile(r"v\d|[A-Za-z]+(?:_[a-z]+)?|m\.[a-z]+(?:[._][a-z]+)*")


@dataclass(eq=False, slots=True)
class Retry:
    """One request from its first try to its end. `failures`: own 5xx of the homeserver, in a
    row."""

    endpoint: str
    started: float = field(default_factory=clock.now)
    failures: int = 0
    sends: int = 0
    told: set[str] = field(default_factory=set[str])

    @property
    def is_long(self) -> bool:
        return clock.now() - self.started >= _LONG


class Retries:
    """All requests under way to one homeserver. `on_refusal` hears of rooms in which something was
    refused (M_FORBIDDEN), or that were not found."""

    def __init__(self, on_refusal: Callable[[str], None] = lambda _: None) -> None:
        self._under_way: set[Retry] = set()
        self._told: set[str] = set()
        self._sends = 0
        self.on_refusal = on_refusal

    @property
    def stuck(self) -> int:
        """How many requests have been tried for longer than 30 s."""
        return sum(retry.is_long for retry in self._under_way)

    @property
    def longest(self) -> str:
        """The request that has been under way for longest, "" for none."""
        retry = min(self._under_way, key=lambda one: one.started, default=None)
        return "" if retry is None else retry.endpoint

    @contextmanager
    def follow(self, method: str, path: str) -> Generator[Retry]:
        """Keep account of a request while the block runs; `path` is the quoted one. Errors that
        leave the block carry as a note which request they belong to."""
        retry = Retry(f"{method} {_endpoint(path)}")
        self._under_way.add(retry)
        try:
            yield retry
            if "/send/" in path:
                self._sends += 1
        except MatrixRequestError as error:
            error.add_note(retry.endpoint)
            room = _ROOM.search(path)
            # What is read may well not be there.
            missing = isinstance(error, MNotFound) and method != "GET"
            if room is not None and (missing or isinstance(error, MForbidden)):
                self.on_refusal(unquote(room[1]))
            raise
        finally:
            self._under_way.discard(retry)
            self._told -= retry.told

    def is_hopeless(self, retry: Retry) -> bool:
        """Count a 5xx that the homeserver itself worded. True if it is this request's fault: it
        failed so often, and since its last failure messages of others were accepted."""
        others, retry.sends = self._sends - retry.sends, self._sends
        retry.failures += 1
        return retry.failures > _MOST_FAILURES and others > 0

    def failed(self, retry: Retry, reason: str, *, misdirected: bool) -> None:
        """Log that it is tried again: aloud, once for all like it, if it takes long or if only
        an operator can mend it (`misdirected`: the answer was not about the request)."""
        line = f"{'' if misdirected else retry.endpoint} {reason}"
        if not (misdirected or retry.is_long) or line in self._told:
            log.debug("homeserver request is tried again", request=retry.endpoint, reason=reason)
            return
        self._told.add(line)
        retry.told.add(line)
        log.warning(
            "a homeserver request fails again and again", request=retry.endpoint, reason=reason
        )


def _endpoint(path: str) -> str:
    """The path's fixed words and the spec's event types; ids hold other characters."""
    words = path.removeprefix("_matrix/").split("/")
    return "/".join(word if _WORD.fullmatch(word) else "*" for word in words)
