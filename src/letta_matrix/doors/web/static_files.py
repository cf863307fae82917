"""Folders of files that browsers get, with a policy on each."""

from collections.abc import Mapping
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response
from starlette.routing import Route

_FILES = Path(__file__).parent / "static"
_CONTENT_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}


class StaticPage:
    """A page `/NAME` and its files; `connect` are the origins that its scripts may talk to.

    The files are looked up by name once, so that no path leads elsewhere.
    """

    def __init__(self, name: str, connect: str) -> None:
        self._path = f"/{name}"
        folder = _FILES / name
        self._known = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*.*")}
        self.headers: Mapping[str, str] = _headers(connect)

    def routes(self) -> list[Route]:
        return [Route(self._path, self.page), Route(self._path + "/{name:path}", self.file)]

    async def page(self, request: Request) -> Response:
        return self._respond("index.html", request)

    async def file(self, request: Request) -> Response:
        name = request.path_params["name"]
        if not name:
            return RedirectResponse(self._path, 301, headers=self.headers)
        if name not in self._known:
            raise HTTPException(404, "There is no such file.", headers=self.headers)
        return self._respond(name, request)

    def _respond(self, name: str, request: Request) -> Response:
        path = self._known[name]
        headers = {**self.headers, "Content-Type": _CONTENT_TYPES[path.suffix]}
        response = FileResponse(path, headers=headers, stat_result=path.stat())
        etag = response.headers["ETag"]
        if request.headers.get("If-None-Match") == etag:
            return Response(status_code=304, headers={**self.headers, "ETag": etag})
        return response


def _headers(connect: str) -> dict[str, str]:
    policy = (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        f"connect-src {connect}",
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
