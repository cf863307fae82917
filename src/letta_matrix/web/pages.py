"""The chat page: a small Matrix client made of static files, for newcomers without one.

The page talks to the homeserver itself; nothing of a conversation passes through here.
"""

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from letta_matrix import __version__

_FILES = Path(__file__).parent / "static" / "chat"
_CONTENT_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

SERVICE = {
    "message": "letta-matrix",
    "version": __version__,
    "status": "running",
    "docs": "/docs",
    "chat": "/chat",
}
"""What `/` tells programs."""


def chat_routes(homeserver_url: str, bot_user_id: str) -> list[Route]:
    """The routes of `/chat`: the page, its files and `/chat/config.json`; `/` leads
    browsers there and tells programs what this is.

    Args:
        homeserver_url: base URL of the client-server API as browsers reach it.
        bot_user_id: the appservice's bot; the page accepts invitations by it, and by
            agents of its server, without asking.

    Raises:
        ValueError: `homeserver_url` is not an http(s) URL.
    """
    settings = {"homeserver_url": homeserver_url.rstrip("/"), "bot_user_id": bot_user_id}
    chat = _ChatPage(settings, _headers(homeserver_url))
    return [
        Route("/", chat.front_door),
        Route("/chat", chat.page),
        Route("/chat/config.json", chat.settings),
        Route("/chat/{name:path}", chat.static),
    ]


class _ChatPage:
    """The handlers; the files are looked up by name once, so that no path leads elsewhere."""

    def __init__(self, settings: Mapping[str, str], headers: Mapping[str, str]) -> None:
        self._settings = dict(settings)
        self._headers = dict(headers)
        self._known = {path.relative_to(_FILES).as_posix(): path for path in _FILES.rglob("*.*")}

    async def front_door(self, request: Request) -> Response:
        if "text/html" not in request.headers.get("Accept", ""):
            return JSONResponse(SERVICE)
        return RedirectResponse("/chat", 302, headers=self._headers)

    async def page(self, _: Request) -> Response:
        return self._respond("index.html")

    async def settings(self, _: Request) -> Response:
        headers = {**self._headers, "Cache-Control": "no-store"}
        return JSONResponse(self._settings, headers=headers)

    async def static(self, request: Request) -> Response:
        name = request.path_params["name"]
        if not name:
            return RedirectResponse("/chat", 301, headers=self._headers)
        if name not in self._known:
            raise HTTPException(404, "There is no such file.", headers=self._headers)
        return self._respond(name)

    def _respond(self, name: str) -> FileResponse:
        path = self._known[name]
        headers = {**self._headers, "Content-Type": _CONTENT_TYPES[path.suffix]}
        return FileResponse(path, headers=headers)


def _headers(homeserver_url: str) -> dict[str, str]:
    parts = urlsplit(homeserver_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"not an http(s) URL: {homeserver_url!r}")
    policy = (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        f"connect-src 'self' {parts.scheme}://{parts.netloc.rpartition('@')[2]}",
        "img-src 'self' blob: data:",
        "frame-ancestors 'none'",
        "base-uri 'none'",
        "form-action 'self'",
    )
    return {
        "Content-Security-Policy": "; ".join(policy),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cache-Control": "no-cache",
    }
