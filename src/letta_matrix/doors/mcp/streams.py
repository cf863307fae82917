"""What lasts: streams of notifications, calls that wait, connections."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Generator

import structlog

from letta_matrix.access.authenticator import Authenticator
from letta_matrix.access.principal import Principal
from letta_matrix.access.refusals import IdentityUnavailable, TooOften, Unauthorized
from letta_matrix.access.streams import OpenStreams
from letta_matrix.operations.records import StoreUnavailable

log = structlog.get_logger()

RECHECK = 5.0
"""Seconds between looks whether the tokens of what is open are still accepted."""

End = Callable[[str], Awaitable[object]]
"""Ends something: because its token is accepted no more, and why, or "" as the bridge ends."""


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
        """While it is open. `end` may be called several times; `peer` is the address that the
        token comes from.

        Raises TooOften where the principal has too many.
        """
        with self._counted.opened(principal):
            self._open[end] = bearer, peer
            self._watching = self._watching or asyncio.create_task(self._watch())
            try:
                yield
            finally:
                del self._open[end]

    def __len__(self) -> int:
        return len(self._open)

    async def close(self) -> None:
        """End them all, as the bridge ends."""
        if self._watching is not None:
            self._watching.cancel()
        await asyncio.gather(*[end("") for end in self._open], return_exceptions=True)

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
                    ends = [end for end, known in self._open.items() if known == holder]
                    await asyncio.gather(*[end(why) for end in ends], return_exceptions=True)
