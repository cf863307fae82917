"""The pages: a small Matrix client for newcomers without one, the operators' dashboard, and the
REST API's reference.

The chat page talks to the homeserver itself; nothing of a conversation passes through here. The
dashboard calls the REST API.
"""

from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from letta_matrix import __version__
from letta_matrix.doors.web.static_files import StaticPage

SERVICE = {
    "message": "letta-matrix",
    "version": __version__,
    "status": "running",
    "docs": "/docs",
    "chat": "/chat",
    "dashboard": "/dashboard",
}
"""What `/` tells programs."""

_HOME = "letta-matrix-home"
"""The cookie by which the dashboard says that somebody is signed in there; no secret."""


def docs_routes() -> list[Route]:
    """The routes of `/docs`, which shows `/openapi.json`; it needs nothing of other servers."""
    return StaticPage("docs", "'self'").routes()


def dashboard_routes() -> list[Route]:
    """The routes of `/dashboard`, which also needs the files of `/chat`."""
    return StaticPage("dashboard", "'self'").routes()


def chat_routes(
    homeserver_url: str, bot_user_id: str, commands: Sequence[Mapping[str, object]] = ()
) -> list[Route]:
    """The routes of `/chat`: the page, its files and `/chat/config.json`; `/` leads
    browsers there, or to the dashboard those that are signed in to it, and tells programs what
    this is.

    Args:
        homeserver_url: base URL of the client-server API as browsers reach it.
        bot_user_id: the appservice's bot; the page accepts invitations by it, and by
            agents of its server, without asking.
        commands: what one can tell the bridge, as the page lists it (`registry.listed`).

    Raises:
        ValueError: `homeserver_url` is not an http(s) URL.
    """
    settings: dict[str, object] = {
        "homeserver_url": homeserver_url.rstrip("/"),
        "bot_user_id": bot_user_id,
        "commands": list(commands),
    }
    page = StaticPage("chat", f"'self' {_origin(homeserver_url)}")
    chat = _Chat(settings, page.headers)
    return [
        Route("/", chat.front_door),
        Route("/chat/config.json", chat.settings),
        *page.routes(),
    ]


class _Chat:
    """What of the chat page is no file."""

    def __init__(self, settings: Mapping[str, object], headers: Mapping[str, str]) -> None:
        self._settings = dict(settings)
        self._headers = headers

    async def front_door(self, request: Request) -> Response:
        if "text/html" not in request.headers.get("Accept", ""):
            return JSONResponse(SERVICE)
        page = "/dashboard" if request.cookies.get(_HOME) == "dashboard" else "/chat"
        headers = {**self._headers, "Vary": "Accept, Cookie"}
        return RedirectResponse(page, 302, headers=headers)

    async def settings(self, _: Request) -> Response:
        headers = {**self._headers, "Cache-Control": "no-store"}
        return JSONResponse(self._settings, headers=headers)


def _origin(homeserver_url: str) -> str:
    parts = urlsplit(homeserver_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"not an http(s) URL: {homeserver_url!r}")
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
