"""What is made when somebody first asks for it."""

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

from starlette.types import ASGIApp, Receive, Scope, Send

T = TypeVar("T")


class Once(Generic[T]):
    """Stands for what `make` makes, in a thread, with all that it imports.

    Bridges whose doors nobody uses need not hold the doors' libraries in memory.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._made: T | None = None
        self._making = asyncio.Lock()

    async def get(self) -> T:
        """It, the same for everybody."""
        if self._made is None:
            async with self._making:
                if self._made is None:
                    self._made = await asyncio.to_thread(self._make)
        return self._made


class Lazy:
    """Stands for an ASGI application that is made at the first request."""

    def __init__(self, make: Callable[[], ASGIApp]) -> None:
        self._app = Once(make)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await (await self._app.get())(scope, receive, send)
