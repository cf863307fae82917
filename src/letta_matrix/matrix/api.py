"""One request to the homeserver, and what comes of it."""

import asyncio
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import aiohttp
from mautrix.api import Method
from mautrix.errors import MatrixRequestError, make_request_error
from yarl import URL

from letta_matrix.matrix import answers
from letta_matrix.matrix.answers import Answer, ForeignAnswer, Redirected
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


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked: `path` is quoted, bytes have a `content_type`."""

    method: Method
    path: str
    content: Mapping[str, Any] | bytes | None
    params: Mapping[str, str]
    content_type: str | None = None


@dataclass(slots=True)
class Leaves:
    """When a request has to be out at last, by the event loop's clock, and what ends it if it is
    not. Once it is out its answer may take as long as it takes."""

    deadline: float
    limit: asyncio.Timeout
    _is_out: bool = False

    def begins(self) -> None:
        """It has a connection or is to get one; again where that was closed. Raises
        TimeoutError."""
        if asyncio.get_running_loop().time() > self.deadline:
            raise TimeoutError
        self._is_out = False
        self.limit.reschedule(self.deadline)

    def is_out(self) -> None:
        """The first of it is about to be, and the rest of a large one follows. Raises RuntimeError,
        which keeps it back, where it comes too late or has ended meanwhile."""
        if self._is_out:
            return
        # A process that stood still is late without any timer of its own having said so.
        if asyncio.get_running_loop().time() > self.deadline:
            raise RuntimeError("too late to leave")
        self.limit.reschedule(None)
        self._is_out = True


def trace() -> aiohttp.TraceConfig:
    """Tells each request's `Leaves` how far it is."""

    async def begins(_session: object, context: SimpleNamespace, _: object) -> None:
        if context.trace_request_ctx is not None:
            context.trace_request_ctx.begins()

    async def is_out(_session: object, context: SimpleNamespace, _: object) -> None:
        if context.trace_request_ctx is not None:
            context.trace_request_ctx.is_out()

    config = aiohttp.TraceConfig()
    config.on_connection_create_start.append(begins)
    config.on_connection_reuseconn.append(begins)
    config.on_request_chunk_sent.append(is_out)
    return config


@dataclass(slots=True)
class Api:
    """The homeserver at `url` as somebody sees it whose `token` this is."""

    url: str
    token: str = field(repr=False)
    session: aiohttp.ClientSession
    clock: ServerClock
    _root: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        # A host with letters beyond ASCII is asked for by another name; paths are quoted already.
        self._root = str(URL(self.url)).rstrip("/")

    async def ask(self, request: Request, leaves: Leaves | None = None) -> Answer:
        """Make a request once, which has to leave in time where that is given. Raises
        MatrixRequestError for what is refused, RateLimited among it, ForeignAnswer for all that is
        not Matrix, aiohttp.ClientError and TimeoutError."""
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        if (data := _payload(request)) is not None:
            headers["Content-Type"] = request.content_type or "application/json"
        sending = self.session.request(
            str(request.method),
            URL(f"{self._root}/{request.path}", encoded=True),
            data=data,
            params=request.params,
            headers=headers,
            allow_redirects=False,
            trace_request_ctx=leaves,
        )
        async with sending as response:
            return await self._answer(response)

    async def _answer(self, response: aiohttp.ClientResponse) -> Answer:
        # Where to is more than what a page says about it.
        if 300 <= response.status < 400:
            raise Redirected(response.url, response.headers.get("Location", ""))
        body = await answers.read_body(response)
        if (answer := answers.parsed(body)) is not None:
            self.clock.dated(response.headers)
        if response.status == TOO_MANY:
            raise RateLimited(answers.pause_of(response, answer or {}))
        if response.status >= 400:
            raise request_error(response, answer)
        if answer is None:
            # A page may show what it was asked with.
            shown = body.replace(self.token.encode(), b"***") if self.token else body
            raise ForeignAnswer(answers.described(response, shown))
        return answer


def request_error(response: aiohttp.ClientResponse, answer: Answer | None) -> Exception:
    """What an answer with a status from 400 on says, as mautrix raises it."""
    errcode, message = (answers.text_of(answer, name) for name in ("errcode", "error"))
    return make_request_error(
        http_status=response.status,
        text="",
        errcode=answers.words(errcode) if errcode else None,
        message=answers.words(message) if message else None,
    )


def _payload(request: Request) -> Any:
    if request.method is Method.GET:
        return None
    if not isinstance(content := request.content, bytes):
        return json.dumps(content or {}).encode()
    # From a stream aiohttp sends in pieces; bytes as large as that would hold up everything else.
    return io.BytesIO(content) if len(content) > _LARGE else content
