"""The chat page: a small Matrix client made of static files, for newcomers without one.

The page talks to the homeserver itself; nothing of a conversation passes through here.
"""

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from aiohttp import web

_FILES = Path(__file__).parent / "static" / "chat"
_CONTENT_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


def chat_routes(homeserver_url: str, bot_user_id: str) -> list[web.RouteDef]:
    """The routes of `/chat`: the page, its files and `/chat/config.json`; `/` leads there.

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
        web.get("/", chat.front_door),
        web.get("/chat", chat.page),
        web.get("/chat/config.json", chat.settings),
        web.get("/chat/{name:.*}", chat.static),
    ]


class _ChatPage:
    """The handlers; the files are looked up by name once, so that no path leads elsewhere."""

    def __init__(self, settings: Mapping[str, str], headers: Mapping[str, str]) -> None:
        self._settings = dict(settings)
        self._headers = dict(headers)
        self._known = {path.relative_to(_FILES).as_posix(): path for path in _FILES.rglob("*.*")}

    async def front_door(self, _: web.Request) -> web.StreamResponse:
        raise web.HTTPFound("/chat", headers=self._headers)

    async def page(self, _: web.Request) -> web.StreamResponse:
        return self._respond("index.html")

    async def settings(self, _: web.Request) -> web.StreamResponse:
        headers = {**self._headers, "Cache-Control": "no-store"}
        return web.json_response(self._settings, headers=headers)

    async def static(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        if not name:
            raise web.HTTPMovedPermanently("/chat", headers=self._headers)
        if name not in self._known:
            raise web.HTTPNotFound(text="There is no such file.", headers=self._headers)
        return self._respond(name)

    def _respond(self, name: str) -> web.FileResponse:
        path = self._known[name]
        headers = {**self._headers, "Content-Type": _CONTENT_TYPES[path.suffix]}
        return web.FileResponse(path, headers=headers)


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
