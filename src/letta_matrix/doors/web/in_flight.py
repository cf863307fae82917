"""How many bytes of large requests may be in flight at a time, over all doors and callers.

A body is several times its size while it is worked on: as bytes, as text, as what that says.
"""

import asyncio
import gc
import math
from collections import Counter, deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope

SMALL = 128_000
"""Bytes of a body that is never waited with."""
MOST = 16_000_000
"""Bytes of larger ones at a time."""
PATIENCE = 10.0
"""Seconds that a request waits for its turn, with its body unread."""


class TooMuchInFlight(Exception):
    """Too many large requests are worked on; `retry_after` is in seconds."""

    retry_after = 10.0

    def __init__(self) -> None:
        super().__init__(
            "Too many large requests arrive at once. Try again in "
            f"{math.ceil(self.retry_after)} seconds."
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    caller: str
    size: int
    turn: asyncio.Future[None]


class InFlight:
    """Bytes that are handed out, one for all doors: first to callers that hold none, in the order
    in which they asked. Who holds some gets more up to half of all, so that a slow caller leaves
    room for others."""

    def __init__(self, most: int = MOST) -> None:
        self._most = self._left = most
        self._held = Counter[str]()
        self._waiting: deque[_Waiting] = deque()
        self._let_go = 0

    @asynccontextmanager
    async def body(
        self, caller: str, scope: Scope, receive: Receive, most: int
    ) -> AsyncGenerator[Receive]:
        """While the body of a request by `caller`, and what is made of it, is held; to be read
        with what this gives. One without a `Content-Length` counts as `most` bytes once it is not
        small.

        Raises TooMuchInFlight.
        """
        length = Headers(scope=scope).get("Content-Length", "")
        if length.isdecimal():
            async with self.held(caller, int(length[:20])):
                yield receive
            return
        if "Transfer-Encoding" not in Headers(scope=scope):
            yield receive
            return
        first, size = await _first(receive)
        async with self.held(caller, most if size > SMALL else size):
            yield behind(first, receive)

    @asynccontextmanager
    async def held(self, caller: str, size: int) -> AsyncGenerator[None]:
        """While so many bytes are held; small ones do not count. Raises TooMuchInFlight."""
        if size <= SMALL:
            yield
            return
        # What is larger than all of it has its turn alone.
        wanted = _Waiting(caller, min(size, self._most), asyncio.get_running_loop().create_future())
        await self._take(wanted)
        try:
            yield
        finally:
            self._give_back(wanted)

    async def _take(self, wanted: _Waiting) -> None:
        self._waiting.append(wanted)
        self._serve()
        try:
            async with asyncio.timeout(PATIENCE):
                await wanted.turn
        except BaseException as error:
            if wanted.turn.cancelled():
                # Served already, it was passed over.
                self._waiting = deque(one for one in self._waiting if one is not wanted)
                self._serve()
            else:
                self._give_back(wanted)
            if isinstance(error, TimeoutError):
                raise TooMuchInFlight from None
            raise

    def _give_back(self, given: _Waiting) -> None:
        self._left += given.size
        self._held[given.caller] -= given.size
        self._held += Counter()  # forgets who holds nothing
        self._serve()
        self._let_go += given.size
        if self._let_go >= self._most // 2:
            # An error keeps the frames that it passed, and with them bodies, until the collector
            # comes: it counts objects, and large ones are few.
            self._let_go = 0
            asyncio.get_running_loop().call_soon(gc.collect)

    def _serve(self) -> None:
        for one in sorted(self._waiting, key=lambda one: self._held[one.caller] > 0):
            if one.turn.done() or self._is_beyond_its_share(one):
                continue
            if one.size > self._left:
                return  # the next one may be smaller; this one would wait for ever
            self._left -= one.size
            self._held[one.caller] += one.size
            self._waiting.remove(one)
            one.turn.set_result(None)

    def _is_beyond_its_share(self, one: _Waiting) -> bool:
        holds = self._held[one.caller]
        return holds > 0 and holds + one.size > self._most // 2


async def _first(receive: Receive) -> tuple[list[Message], int]:
    """The messages of a body until it ends or is small no more, and its bytes in them."""
    messages: list[Message] = []
    size, more = 0, True
    while more and size <= SMALL:
        message = await receive()
        messages.append(message)
        size += len(message.get("body", b""))
        more = bool(message.get("more_body"))
    return messages, size


def behind(first: list[Message], receive: Receive) -> Receive:
    """A body of which the `first` messages were read already, from its beginning."""
    ahead = deque(first)

    async def replay() -> Message:
        return ahead.popleft() if ahead else await receive()

    return replay
