"""Applications that are made when somebody first asks them something."""

from collections.abc import Callable

from starlette.types import ASGIApp, Receive, Scope, Send

from letta_matrix.common.once import Once


class Lazy:
    """Stands for an ASGI application that is made at the first request."""

    def __init__(self, make: Callable[[], ASGIApp]) -> None:
        self._app = Once(make)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await (await self._app.get())(scope, receive, send)
