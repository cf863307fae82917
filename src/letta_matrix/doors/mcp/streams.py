"""What lasts: streams of notifications, calls that wait, connections."""

import asyncio
import contextlib
from collections.abc import Callable, Generator

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
"""Seconds between looks whether the tokens of what is open are still accepted."""

End = Callable[[str], object]


class Streams:
    """Counts what a token has open, no more than `most` of what is called `kind`, and ends it
    when the token is accepted no more."""

    def __init__(self, authenticator: Authenticator, most: int, kind: str) -> None:
        self._authenticator = authenticator
        self._open: dict[End, tuple[str, str]] = {}
        self._counted = OpenStreams(most, kind)
        self._watching: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def opened(self, principal: Principal, bearer: str, peer: str, end: End) -> Generator[None]:
        """While it is open. `end` is told why it may be so no more, once or several times; `peer`
        is the address that the token comes from.

        Raises TooOften where the principal has too many.
        """
        with self._counted.opened(principal):
            self._open[end] = bearer, peer
            self._watching = self._watching or asyncio.create_task(self._watch())
            try:
                yield
            finally:
                del self._open[end]

    def close(self) -> None:
        """Look after them no more."""
        if self._watching is not None:
            self._watching.cancel()

    async def refusal(self, bearer: str, peer: str) -> str:
        """Why a token is accepted no more; "" where it is, or that cannot be told now."""
        try:
            await self._authenticator.identify(bearer, peer)
        except (StoreUnavailable, IdentityUnavailable, TooOften) as error:
            log.warning("tokens of open requests are not checked", reason=str(error))
        except Unauthorized as error:
            return str(error)
        except Exception as error:
            # Whatever fails for one token, the others must be looked at for as long as they last.
            log.error("a token of open requests is not checked", exc_info=error)
        return ""

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(RECHECK)
            for holder in set(self._open.values()):
                if why := await self.refusal(*holder):
                    for end in [end for end, known in self._open.items() if known == holder]:
                        end(why)
