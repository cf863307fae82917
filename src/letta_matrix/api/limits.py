"""What holds for every request: how large it is, where its token is, how its answer is kept."""

from collections import Counter
from typing import Any
from urllib.parse import parse_qsl

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException

from letta_matrix.api.problems import Problem, broken, response
from letta_matrix.api.routing import PREFIX
from letta_matrix.web.lazy import App, Receive, Scope, Send

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
    "Referrer-Policy": "no-referrer",
}
_IN_URL = (
    "Tokens do not belong in a URL, where logs keep them. Send `Authorization: Bearer lm_...`."
)
_OUTSIDE = 1_000_000


class Limits:
    """ASGI middleware. Bodies of more than `most` bytes are refused, and tokens in the URL; what
    fails unexpectedly is a problem document too. `answers` counts by status, such as `2xx`.

    Outside of the API itself a body is read before its token is known: there it may be of 1 MB.
    """

    def __init__(self, app: App, most: int, answers: Counter[str]) -> None:
        self._app = app
        self._most = most
        self._answers = answers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = False

        async def answer(message: Any) -> None:
            nonlocal began
            if message["type"] == "http.response.start":
                began = True
                self._answers[f"{message['status'] // 100}xx"] += 1
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        most = self._most if scope["path"].startswith(PREFIX) else min(self._most, _OUTSIDE)
        try:
            _check(scope, most)
            await self._app(scope, _counted(receive, most), answer)
        except Problem as problem:
            await response(problem)(scope, receive, answer)
        except Exception as error:
            problem = broken(error, scope["method"], scope["path"])
            if began:
                raise
            await response(problem)(scope, receive, answer)


def _check(scope: Scope, most: int) -> None:
    query = scope["query_string"].decode("latin-1")
    if any(name == "access_token" for name, _ in parse_qsl(query, keep_blank_values=True)):
        raise Problem("token-in-url", _IN_URL)
    length = Headers(scope=scope).get("Content-Length", "0")
    if length.isdecimal() and int(length[:20]) > most:
        raise Problem("too-large", _too_large(most))


def _counted(receive: Receive, most: int) -> Receive:
    seen = 0

    async def counted() -> Any:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > most:
            # The one exception that FastAPI lets through while it reads a body.
            raise HTTPException(413, _too_large(most))
        return message

    return counted


def _too_large(most: int) -> str:
    return f"The body is larger than {most} bytes."
