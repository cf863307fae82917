"""Pages and probes, and behind them an application."""

from collections.abc import Sequence

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Receive, Scope, Send


class Front:
    """Answers what `routes` are for; all else is for `behind`, which tells what is wrong with it:
    a path that nobody knows, or a method that a page does not take. `middleware` is around the
    pages alone."""

    def __init__(
        self, routes: Sequence[Route], behind: ASGIApp, middleware: Sequence[Middleware] = ()
    ) -> None:
        self._routes = list(routes)
        self._pages = Starlette(routes=self._routes, middleware=middleware)
        self._behind = behind

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        known = any(route.matches(scope)[0] is Match.FULL for route in self._routes)
        await (self._pages if known else self._behind)(scope, receive, send)
