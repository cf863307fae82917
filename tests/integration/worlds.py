"""The bridge that test files share: a homeserver knows one port of its application service, so
that one runs at a time."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any, TypeVar

W = TypeVar("W")


class Worlds:
    """Holds the one that runs. Who asks for another make gets a new one in its place."""

    def __init__(self) -> None:
        self._make: object = None
        self._world: Any = None
        self._opened = AsyncExitStack()

    async def get(self, make: object, opening: Callable[[], AbstractAsyncContextManager[W]]) -> W:
        """The world of a make, which is whatever tells its configuration from others."""
        if self._make != make:
            await self.close()
            self._world = await self._opened.enter_async_context(opening())
            self._make = make
        return self._world

    async def close(self) -> None:
        self._make = self._world = None
        await self._opened.aclose()
