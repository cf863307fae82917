"""The homeserver's client-server API as an application service calls it.

mautrix builds and parses the requests; retrying is ours, because mautrix leaves
429 to the caller and a resend must know whether the first try arrived.
"""

import asyncio
import copy
import io
import json
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
from mautrix.api import HTTPAPI, ClientPath, Method, PathBuilder
from mautrix.errors import MatrixConnectionError, MatrixRequestError, make_request_error
from yarl import URL

from letta_matrix import clock
from letta_matrix.matrix.errors import is_about_another, is_refusal, refusal
from letta_matrix.matrix.events import mapping
from letta_matrix.matrix.pacing import Pacer
from letta_matrix.matrix.retries import Retries, Retry
from letta_matrix.matrix.route import Route, certificate_fault
from letta_matrix.matrix.server_clock import ServerClock

_FIRST_PAUSE = 0.25
_LONGEST_PAUSE = 10.0
_GATEWAY_ERRORS = {502, 503, 504}
"""From a proxy whose homeserver is gone; those of the homeserver itself carry an errcode."""
_TIMEOUT = aiohttp.ClientTimeout(total=90, sock_connect=10)
_READ_TIMEOUT = 30.0
_READ_PAUSES = (0.5, 1.5)
_LONGEST_ERROR = 10_000
_LARGE = 2**20
_UNAUTHORIZED = 401
_TOO_MANY = 429

Recover = Callable[[], Awaitable[Mapping[str, Any] | None]]
"""Asks whether a request whose answer was lost took effect; its answer then, else None."""


_FAULTS = (MatrixRequestError, MatrixConnectionError, TimeoutError)


class HomeserverUnavailable(Exception):
    """The homeserver gave no answer that counts (none, 5xx, 429, not of Matrix, token unknown) for
    as long as we were to try."""


class BodyTooLarge(Exception):
    """A file has more bytes than were to be read."""


class RateLimited(MatrixRequestError):
    """429 `M_LIMIT_EXCEEDED` (client-server API, rate limiting); `pause` is in seconds."""

    def __init__(self, pause: float) -> None:
        super().__init__("the homeserver asks us to slow down")
        self.http_status = 429
        self.errcode = "M_LIMIT_EXCEEDED"
        self.message = None
        self.pause = pause


@dataclass(frozen=True, slots=True)
class _Fault:
    """Why a request is tried again; `pause` (seconds) is what the homeserver asked for."""

    text: str
    pause: float | None = None
    misdirected: bool = False


class _Api(HTTPAPI):
    """mautrix's request sender, keeping what a 429 says about when to come back, and what time it
    is there."""

    clock: ServerClock

    async def _send(
        self, method: Method, url: URL, content: Any, query_params: Any, headers: Any
    ) -> tuple[Any, aiohttp.ClientResponse]:
        request = self.session.request(
            str(method), url, data=_payload(content), params=query_params, headers=headers
        )
        async with request as response:
            text = await response.text()
            self.clock.dated(response.headers)
            answer = _parse(text)
            if response.status == _TOO_MANY:
                raise RateLimited(_pause(answer, response.headers.get("Retry-After")))
            if not 200 <= response.status < 300:
                raise make_request_error(
                    http_status=response.status,
                    text=text[:500],
                    errcode=answer.get("errcode"),
                    message=answer.get("error"),
                )
            return answer, response


def _payload(content: Any) -> Any:
    # From a stream aiohttp sends in pieces; bytes as large as that would hold up everything else.
    return io.BytesIO(content) if isinstance(content, bytes) and len(content) > _LARGE else content


class Homeserver:
    """Sends requests as any of our users, with retries.

    One pooled session: 100 connections, names cached for 5 minutes, kept alive for 30 s.
    `writes` counts requests that change something there; `outage` is set when one may not have
    reached it; `retries` knows those that are tried again; `clock` is the homeserver's.
    """

    def __init__(self, url: str, as_token: str, pacer: Pacer, route: Route | None = None) -> None:
        self.url = url
        self.pacer = pacer
        self.route = route or Route()
        self.writes = 0
        self.outage = asyncio.Event()
        self.retries = Retries()
        connector = self.route.connector(limit=100, ttl_dns_cache=300, keepalive_timeout=30)
        self._session = aiohttp.ClientSession(connector=connector, timeout=_TIMEOUT)
        self._api = _Api(url, as_token, client_session=self._session)
        self.clock = self._api.clock = ServerClock()
        self._is_ours = True

    def with_token(self, token: str) -> "Homeserver":
        """The same homeserver as somebody sees it whose access token this is, whatever `user_id`
        is asked for. A token that is refused is an answer there. To be closed by nobody."""
        theirs = copy.copy(self)
        theirs._api = _Api(self.url, token, client_session=self._session)
        theirs._api.clock = self.clock
        theirs._is_ours = False
        return theirs

    async def close(self) -> None:
        await self._session.close()

    @property
    def trouble(self) -> str:
        """That somebody else listens in its place, "" if nobody does."""
        return next((one.trouble for one in self.route.known if one.trouble), "")

    @property
    def process(self) -> str | None:
        """Which process it is, "" while it has none; None where that is not known."""
        return next((one.process for one in self.route.known), None)

    async def request(
        self,
        method: Method,
        path: PathBuilder,
        content: Mapping[str, Any] | bytes | None = None,
        *,
        user_id: str | None = None,
        query: Mapping[str, str] | None = None,
        content_type: str | None = None,
        give_up_after: float | None = 60.0,
        recover: Recover | None = None,
    ) -> dict[str, Any]:
        """Make a request, as `user_id` if given, and return its JSON answer.

        429 waits as long as the homeserver says; lost connections, 5xx and answers of others
        (see `is_refusal`) are tried again with growing, jittered pauses for `give_up_after`
        seconds (None: for ever). `recover` is asked before a resend, since the answer and not
        the request may be what was lost.

        Raises:
            MatrixRequestError: the homeserver said no (4xx), or, asked for something, that another
                server does not answer; or, with no end of tries, fails at this request again and
                again while it accepts messages of others.
            HomeserverUnavailable: it could not be reached in time.
        """
        pause = _FIRST_PAUSE
        deadline = None if give_up_after is None else clock.now() + give_up_after
        with self.retries.follow(str(method), str(path)) as retry:
            while True:
                try:
                    return await self._once(method, path, content, user_id, query, content_type)
                except _FAULTS as error:
                    reads = method is Method.GET
                    fault = self._fault(error, retry, endless=deadline is None, reads=reads)
                wait = pause if fault.pause is None else fault.pause
                if deadline is not None and clock.now() + wait > deadline:
                    raise HomeserverUnavailable(fault.text)
                self.retries.failed(retry, fault.text, misdirected=fault.misdirected)
                await asyncio.sleep(wait * random.uniform(1.0, 1.3))  # noqa: S311
                pause = min(pause * 2, _LONGEST_PAUSE)
                if recover is not None and (answer := await _recovered(recover)) is not None:
                    return dict(answer)

    async def read(self, path: str, user_id: str, most: int, *, cut: bool = False) -> bytes:
        """A file's bytes, as `user_id`; of more than `most` the first `most` with `cut`.

        Redirects are followed, without our token beyond the homeserver.

        Raises:
            BodyTooLarge: there are more than `most` bytes, and no `cut`.
            MatrixRequestError: the homeserver said no.
            HomeserverUnavailable: it gave no whole answer in three tries, each of at most 30 s.
        """
        url = URL(self.url.rstrip("/") + "/" + path).with_query(user_id=user_id)
        reason = ""
        for pause in (*_READ_PAUSES, None):
            try:
                async with asyncio.timeout(_READ_TIMEOUT):
                    return await self._read_once(url, most, cut=cut)
            except (aiohttp.ClientError, TimeoutError) as error:
                reason = certificate_fault(error) or str(error) or "timed out"
            except MatrixRequestError as error:
                if is_refusal(error) and error.http_status != _TOO_MANY:
                    raise
                reason = _reason(error)
            if pause is not None:
                await asyncio.sleep(pause)
        raise HomeserverUnavailable(f"the homeserver does not give out a file: {reason}")

    async def _read_once(self, url: URL, most: int, *, cut: bool) -> bytes:
        headers = {"Authorization": f"Bearer {self._api.token}", "Accept-Encoding": "identity"}
        async with self._session.get(url, headers=headers, max_redirects=3) as response:
            if response.status != 200:
                answer = _parse(
                    (await response.content.read(_LONGEST_ERROR)).decode(errors="replace")
                )
                raise make_request_error(
                    http_status=response.status,
                    text="",
                    errcode=answer.get("errcode"),
                    message=answer.get("error"),
                )
            if not cut and (response.content_length or 0) > most:
                raise BodyTooLarge
            data = bytearray()
            async for chunk in response.content.iter_any():
                data += chunk
                if len(data) > most:
                    if not cut:
                        raise BodyTooLarge
                    break
            return bytes(data[:most])

    async def ping(self, appservice_id: str, transaction_id: str) -> None:
        """Ask the homeserver to reach us, which also ends its backoff (spec v1.7, MSC2659)."""
        path = ClientPath.v1.appservice[appservice_id].ping
        try:
            body = {"transaction_id": transaction_id}
            await self.request(Method.POST, path, body, give_up_after=0)
        except HomeserverUnavailable as error:
            # Synapse trips over its own timer when it is sending to us already: we were reached.
            if not any(sign in str(error) for sign in ("AlreadyCalled", "AlreadyCancelled")):
                raise

    def _fault(self, error: Exception, retry: Retry, *, endless: bool, reads: bool) -> _Fault:
        """What is to be tried again, and when; raises `error` if it is not."""
        if isinstance(error, RateLimited):
            return _Fault("the homeserver does not answer: rate limited", pause=error.pause)
        if isinstance(error, MatrixRequestError):
            if is_refusal(error) or (reads and is_about_another(error)):
                raise error
            if error.http_status == _UNAUTHORIZED and not self._is_ours:
                raise error
            if error.http_status < 500:
                return _Fault(refusal(error), misdirected=True)
            is_own = error.http_status not in _GATEWAY_ERRORS and bool(error.errcode)
            if is_own and self.retries.is_hopeless(retry) and endless:
                raise error
            if not is_own and not error.errcode:
                self.outage.set()
            reason = _reason(error)
        else:
            self.outage.set()
            reason, is_own = certificate_fault(error) or str(error) or "timed out", False
        retry.failures = retry.failures if is_own else 0
        return _Fault(f"the homeserver does not answer: {reason}")

    async def _once(
        self,
        method: Method,
        path: PathBuilder,
        content: Mapping[str, Any] | bytes | None,
        user_id: str | None,
        query: Mapping[str, str] | None,
        content_type: str | None,
    ) -> dict[str, Any]:
        params = dict(query or {})
        if user_id is not None:
            params["user_id"] = user_id
        if method is not Method.GET:
            self.writes += 1
        answer = await self._api.request(  # pyright: ignore[reportUnknownVariableType]
            method,
            path,
            content if isinstance(content, bytes) else dict(content or {}),
            headers={"Content-Type": content_type} if content_type else None,
            query_params=params,
        )
        return dict(mapping(answer))  # pyright: ignore[reportUnknownArgumentType]


async def _recovered(recover: Recover) -> Mapping[str, Any] | None:
    try:
        return await recover()
    except MatrixRequestError:
        return None


def _reason(error: MatrixRequestError) -> str:
    return f"HTTP {error.http_status} {error.errcode or ''} {error.message or ''}".strip()


def _parse(text: str) -> dict[str, Any]:
    try:
        answer: object = json.loads(text)
    except ValueError:
        return {}
    return dict(mapping(answer))


def _pause(answer: Mapping[str, Any], retry_after: str | None) -> float:
    milliseconds = answer.get("retry_after_ms")
    if isinstance(milliseconds, int | float) and milliseconds >= 0:
        return min(milliseconds / 1000, 300.0)
    if retry_after is not None and retry_after.isdigit():
        return min(float(retry_after), 300.0)
    return 1.0
