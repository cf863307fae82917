"""How many bytes of large requests there may be at a time, over all doors and callers.

A body is several times its size while it is worked on: as bytes, as text, as what that says.
"""

import asyncio
import gc
import math
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope

SMALL = 128_000
"""Bytes of a body that is never waited with."""
MOST = 16_000_000
"""Bytes of larger ones at a time."""
PATIENCE = 10.0
"""Seconds that a request waits for its turn, with its body unread."""


class BudgetSpent(Exception):
    """Too many large requests are worked on; `retry_after` is in seconds."""

    retry_after = 10.0

    def __init__(self) -> None:
        super().__init__(
            "Too many large requests arrive at once. Try again in "
            f"{math.ceil(self.retry_after)} seconds."
        )


class Budget:
    """Bytes that are handed out in the order in which they were asked for. One for all doors."""

    def __init__(self, most: int = MOST) -> None:
        self._most = self._left = most
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._let_go = 0

    @asynccontextmanager
    async def body(self, scope: Scope, receive: Receive, most: int) -> AsyncGenerator[Receive]:
        """While a request's body, and what is made of it, is held; to be read with what this
        gives. One without a `Content-Length` counts as `most` bytes once it is not small.

        Raises BudgetSpent.
        """
        length = Headers(scope=scope).get("Content-Length", "")
        if length.isdecimal():
            async with self.held(int(length[:20])):
                yield receive
            return
        if "Transfer-Encoding" not in Headers(scope=scope):
            yield receive
            return
        first, size = await _first(receive)
        async with self.held(most if size > SMALL else size):
            yield _behind(first, receive)

    @asynccontextmanager
    async def held(self, size: int) -> AsyncGenerator[None]:
        """While so many bytes are held; small ones do not count. Raises BudgetSpent."""
        if size <= SMALL:
            yield
            return
        # What is larger than all of it has its turn alone.
        size = min(size, self._most)
        await self._take(size)
        try:
            yield
        finally:
            self._give_back(size)

    async def _take(self, size: int) -> None:
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((size, turn))
        self._serve()
        try:
            async with asyncio.timeout(PATIENCE):
                await turn
        except BaseException as error:
            if turn.cancelled():
                # Served already, it was passed over.
                self._waiting = deque(one for one in self._waiting if one[1] is not turn)
                self._serve()
            else:
                self._give_back(size)
            if isinstance(error, TimeoutError):
                raise BudgetSpent from None
            raise

    def _give_back(self, size: int) -> None:
        self._left += size
        self._serve()
        self._let_go += size
        if self._let_go >= self._most // 2:
            # An error keeps the frames that it passed, and with them bodies, until the collector
            # comes: it counts objects, and large ones are few.
            self._let_go = 0
            asyncio.get_running_loop().call_soon(gc.collect)

    def _serve(self) -> None:
        while self._waiting and self._waiting[0][0] <= self._left:
            size, turn = self._waiting.popleft()
            if not turn.cancelled():
                self._left -= size
                turn.set_result(None)


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


def _behind(first: list[Message], receive: Receive) -> Receive:
    ahead = deque(first)

    async def replay() -> Message:
        return ahead.popleft() if ahead else await receive()

    return replay
