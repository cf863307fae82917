"""What holds for every request: how large it is, where its token is, how its answer is kept."""

import math
from collections import Counter
from typing import Any
from urllib.parse import parse_qsl

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from letta_matrix.doors.rest.problems import Problem, broken, response
from letta_matrix.doors.rest.routing import PREFIX
from letta_matrix.doors.web.in_flight import SMALL

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
    "Referrer-Policy": "no-referrer",
}
_IN_URL = (
    "Tokens do not belong in a URL, where logs keep them. Send `Authorization: Bearer lm_...`."
)
_JSON = 256_000
_MESSAGE = 1_300_000
"""100,000 characters, each escaped as a pair of surrogates, and the other fields."""


class Limits:
    """ASGI middleware. Bodies that are too large are refused, and tokens in the URL; what fails
    unexpectedly is a problem document too. `answers` counts by status, such as `2xx`.

    `most` bytes may have what brings a file: JSON is parsed on the event loop, and all else waits
    for it. Outside of the API itself that is done before the token is known.
    """

    def __init__(self, app: ASGIApp, most: int, answers: Counter[str]) -> None:
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

        most = min(self._most, _most_at(scope["path"]))
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


def _most_at(path: str) -> float:
    """How many bytes the body of a request to `path` may have; files are limited by `most`."""
    if not path.startswith(PREFIX + "/"):
        # Where no token is known yet, nobody may take of the room for large bodies.
        return SMALL
    if path.startswith(PREFIX + "/tools/") or path.endswith("/media"):
        return math.inf
    return _MESSAGE if "/messages" in path else _JSON


def _check(scope: Scope, most: float) -> None:
    query = scope["query_string"].decode("latin-1")
    if any(name == "access_token" for name, _ in parse_qsl(query, keep_blank_values=True)):
        raise Problem("token-in-url", _IN_URL)
    length = Headers(scope=scope).get("Content-Length", "0")
    if length.isdecimal() and int(length[:20]) > most:
        raise Problem("too-large", _too_large(most))


def _counted(receive: Receive, most: float) -> Receive:
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


def _too_large(most: float) -> str:
    return f"The body is larger than {most} bytes."
