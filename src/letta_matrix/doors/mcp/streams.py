"""Requests that take long: streams of notifications, and calls that wait."""

import asyncio
import contextlib
from collections.abc import Generator
from dataclasses import dataclass, field

import anyio
import structlog

from letta_matrix.access.authenticator import (
    Authenticator,
    IdentityUnavailable,
    TooOften,
    Unauthorized,
)
from letta_matrix.access.principal import Principal
from letta_matrix.access.streams import OpenStreams
from letta_matrix.store.database import StoreUnavailable

log = structlog.get_logger()

RECHECK = 5.0
"""Seconds between looks whether the tokens of open requests are still accepted."""

MOST = 600
"""Requests of a token that are open at once: a stream for each of its sessions, and calls."""


@dataclass(eq=False, slots=True)
class Stream:
    """A request that is being answered; `scope` ends it, `answering` once its response began."""

    bearer: str
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    answering: bool = False


class Streams:
    """Ends requests whose token was revoked meanwhile, and streams when the bridge closes."""

    def __init__(self, authenticator: Authenticator) -> None:
        self._authenticator = authenticator
        self._open: set[Stream] = set()
        self._counted = OpenStreams(MOST, "requests")

    @contextlib.contextmanager
    def opened(self, principal: Principal, bearer: str) -> Generator[Stream]:
        """While a request is answered. What is inside ends silently when it may not go on.

        Raises TooOften where the principal has too many open.
        """
        stream = Stream(bearer)
        with self._counted.opened(principal):
            self._open.add(stream)
            try:
                with stream.scope:
                    yield stream
            finally:
                self._open.discard(stream)

    def close(self) -> None:
        """End what streams; calls that have said nothing yet may end by themselves."""
        for stream in list(self._open):
            if stream.answering:
                stream.scope.cancel()

    async def watch(self) -> None:
        """Look after them for ever."""
        while True:
            await asyncio.sleep(RECHECK)
            for bearer in {stream.bearer for stream in self._open}:
                if not await self.is_accepted(bearer):
                    self._end(bearer)

    async def is_accepted(self, bearer: str) -> bool:
        """Whether a token is still good, as far as that can be told now."""
        try:
            await self._authenticator.identify(bearer)
        except (StoreUnavailable, IdentityUnavailable, TooOften) as error:
            log.warning("tokens of open requests are not checked", reason=str(error))
        except Unauthorized:
            return False
        except Exception as error:
            # Whatever fails for one token, the others must be looked at for as long as they last.
            log.error("a token of open requests is not checked", exc_info=error)
        return True

    def _end(self, bearer: str) -> None:
        for stream in [stream for stream in self._open if stream.bearer == bearer]:
            stream.scope.cancel()
