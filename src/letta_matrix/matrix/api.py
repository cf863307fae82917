"""One request to the homeserver, and what comes of it."""

import io
from typing import Any

import aiohttp
from mautrix.api import HTTPAPI, Method
from mautrix.errors import MatrixRequestError, make_request_error
from yarl import URL

from letta_matrix.matrix import answers
from letta_matrix.matrix.answers import ForeignAnswer, Redirected
from letta_matrix.matrix.server_clock import ServerClock

_LARGE = 2**20
TOO_MANY = 429


class RateLimited(MatrixRequestError):
    """429 `M_LIMIT_EXCEEDED` (client-server API, rate limiting); `pause` is in seconds."""

    def __init__(self, pause: float) -> None:
        super().__init__("the homeserver asks us to slow down")
        self.http_status = 429
        self.errcode = "M_LIMIT_EXCEEDED"
        self.message = None
        self.pause = pause


class Api(HTTPAPI):
    """mautrix's request sender, keeping what a 429 says about when to come back and what time it is
    there, and taking nothing but Matrix for an answer. Raises ForeignAnswer."""

    clock: ServerClock

    async def _send(
        self, method: Method, url: URL, content: Any, query_params: Any, headers: Any
    ) -> tuple[Any, aiohttp.ClientResponse]:
        request = self.session.request(
            str(method),
            url,
            data=_payload(content),
            params=query_params,
            headers=headers,
            allow_redirects=False,
        )
        async with request as response:
            # Where to is more than what a page says about it.
            if 300 <= response.status < 400:
                raise Redirected(url, response.headers.get("Location", ""))
            body = await answers.read_body(response)
            if (answer := answers.parsed(body)) is not None:
                self.clock.dated(response.headers)
            if response.status == TOO_MANY:
                raise RateLimited(answers.pause_of(response, answer or {}))
            if response.status >= 400:
                raise request_error(response, answer)
            if answer is None:
                # A page may show what it was asked with.
                shown = body.replace(self.token.encode(), b"***")
                raise ForeignAnswer(answers.described(response, shown))
            return answer, response


def request_error(response: aiohttp.ClientResponse, answer: answers.Answer | None) -> Exception:
    """What an answer with a status from 400 on says, as mautrix raises it."""
    errcode, message = (answers.text_of(answer, name) for name in ("errcode", "error"))
    return make_request_error(
        http_status=response.status,
        text="",
        errcode=answers.words(errcode) if errcode else None,
        message=answers.words(message) if message else None,
    )


def _payload(content: Any) -> Any:
    # From a stream aiohttp sends in pieces; bytes as large as that would hold up everything else.
    return io.BytesIO(content) if isinstance(content, bytes) and len(content) > _LARGE else content
