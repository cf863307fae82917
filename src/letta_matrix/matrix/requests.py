"""The homeserver's client-server API as an application service calls it.

mautrix has paths and errors; retrying is ours, because a resend must know whether the first try
arrived.
"""

import asyncio
import copy
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self, TypedDict

import aiohttp
from mautrix.api import Method, PathBuilder
from mautrix.errors import MatrixRequestError
from yarl import URL

from letta_matrix.common import clock
from letta_matrix.common.backoff import Backoff
from letta_matrix.common.connections.unreached import why_unreached
from letta_matrix.common.measures import REQUEST_BOUNDS, Calls
from letta_matrix.common.sureness import Sure, alone
from letta_matrix.matrix import answers
from letta_matrix.matrix.answers import ForeignAnswer, Redirected, Shape
from letta_matrix.matrix.api import (
    TOO_MANY,
    Api,
    Leaves,
    RateLimited,
    Request,
    request_error,
    trace,
)
from letta_matrix.matrix.errors import (
    is_about_another,
    is_about_token,
    is_misrouted,
    is_refusal,
    may_be_about_the_request,
    not_of_matrix,
    reason_of,
    refusal,
)
from letta_matrix.matrix.pacing import Pacer
from letta_matrix.matrix.request_kinds import fault_of, kind_of
from letta_matrix.matrix.retries import Retries, Retry
from letta_matrix.matrix.route import Route, issuer_hint
from letta_matrix.matrix.server_clock import ServerClock

_FIRST_PAUSE = 0.25
_LONGEST_PAUSE = 10.0
_TIMEOUT = aiohttp.ClientTimeout(total=90, sock_connect=10)
_READ_TIMEOUT = 30.0
_READ_PAUSES = (0.5, 1.5)
_UNAUTHORIZED = 401

Recover = Callable[[], Awaitable[Mapping[str, Any] | None]]
"""Asks whether a request whose answer was lost took effect; its answer then, else None."""


class Options(TypedDict, total=False):
    """What `Requests.request` may be told beside what is asked, and as whom."""

    query: Mapping[str, str] | None
    content_type: str | None
    give_up_after: float | None
    recover: Recover | None
    shape: Shape


_FAULTS = (MatrixRequestError, aiohttp.ClientError, ForeignAnswer, TimeoutError)


class HomeserverUnavailable(Exception):
    """The homeserver gave no answer that counts (none, 5xx, 429, not of Matrix, token unknown) for
    as long as we were to try; the cause is what came last. `fails`: it answered in its own words
    that it fails at this, which need not end."""

    def __init__(self, reason: str, *, fails: bool = False) -> None:
        super().__init__(reason)
        self.fails = fails


class BodyTooLarge(Exception):
    """A file has more bytes than were to be read."""


@dataclass(frozen=True, slots=True)
class _Fault:
    """Why a request is tried again; `pause` (seconds) is what the homeserver asked for. `lost`
    unless it said itself that nothing came of the request: that may have taken effect."""

    text: str
    pause: float | None = None
    misdirected: bool = False
    is_own: bool = False
    lost: bool = True


class Requests:
    """Sends requests as any of our users, with retries.

    One pooled session: 100 connections, names cached for 5 minutes, kept alive for 30 s.
    `writes` counts requests that change something there; `outage` is set when one may not have
    reached it; `retries` knows those that are tried again; `foreign` says what was met in its
    place last, until it is there again; `calls` counts each try, by its kind; `clock` is the
    homeserver's; `on_refusal` hears of rooms in which something was refused. While the homeserver
    does not know our token, or not any more, the `earlier_token` is used. Nothing is changed there
    before `sure` returns.
    """

    def __init__(
        self,
        url: str,
        as_token: str,
        pacer: Pacer,
        route: Route | None = None,
        clock: ServerClock | None = None,
        on_refusal: Callable[[str], None] = lambda _: None,
        earlier_token: str = "",
        sure: Sure | None = None,
    ) -> None:
        self.url = url
        self._other_token = earlier_token
        self._sure = sure or alone
        self.pacer = pacer
        self.route = route or Route()
        self.writes = 0
        self.outage = asyncio.Event()
        self.retries = Retries(on_refusal)
        self.foreign = ""
        self.calls = Calls(fault_of, *REQUEST_BOUNDS)
        connector = self.route.connector(limit=100, ttl_dns_cache=300, keepalive_timeout=30)
        self._session = aiohttp.ClientSession(
            connector=connector, timeout=_TIMEOUT, trace_configs=[trace()] if sure else []
        )
        self.clock = clock or ServerClock()
        self._api = Api(url, as_token, self._session, self.clock)
        self._is_ours = True

    def with_token(self, token: str) -> Self:
        """The same homeserver as somebody sees it whose access token this is, whatever `user_id`
        is asked for. A token that is refused is an answer there. To be closed by nobody."""
        theirs = copy.copy(self)
        theirs._api = Api(self.url, token, self._session, self.clock)
        theirs._is_ours, theirs._other_token = False, ""
        return theirs

    @property
    def token(self) -> str:
        """The one by which the homeserver knows us."""
        return self._api.token

    async def close(self) -> None:
        await self._session.close()

    @property
    def trouble(self) -> str:
        """That somebody else listens or answers in its place, "" if nobody does."""
        return next((one.trouble for one in self.route.known if one.trouble), self.foreign)

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
        shape: Shape = answers.done,
    ) -> dict[str, Any]:
        """Make a request, as `user_id` if given, and return its JSON answer, which is of `shape`.

        429 waits as long as the homeserver says; lost connections, 5xx and answers of others
        (see `is_refusal`, and what is not of `shape`) are tried again with growing, jittered
        pauses for `give_up_after` seconds (None: for ever). `recover` is asked before each resend
        once the answer and not the request may be what was lost.

        Raises:
            MatrixRequestError: the homeserver said no (4xx), or, asked for something, that another
                server does not answer; or, with no end of tries, fails at this request again and
                again while it accepts messages of others.
            HomeserverUnavailable: it could not be reached in time.
        """
        params = {**(query or {}), **({} if user_id is None else {"user_id": user_id})}
        asked = Request(method, str(path), content, params, content_type)
        pauses, lost = iter(Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)), False
        kind = kind_of(method, asked.path, interim=give_up_after == 0)
        deadline = None if give_up_after is None else clock.now() + give_up_after
        with self.retries.follow(str(method), asked.path) as retry:
            while True:
                try:
                    with self.calls.timed(kind):
                        answer = await self._once(asked)
                        if not shape(answer):
                            raise ForeignAnswer(answers.misshapen(answer))
                    self.foreign = ""
                    return answer
                except _FAULTS as error:
                    reads = method is Method.GET
                    fault = self._fault(error, retry, endless=deadline is None, reads=reads)
                    pause = next(pauses)
                    wait = pause if fault.pause is None else fault.pause
                    if deadline is not None and clock.now() + wait > deadline:
                        raise HomeserverUnavailable(fault.text, fails=fault.is_own) from error
                self.retries.failed(retry, fault.text, misdirected=fault.misdirected)
                await asyncio.sleep(wait * random.uniform(1.0, 1.3))  # noqa: S311
                lost = lost or fault.lost
                if lost and (answer := await _recovered(recover)) is not None:
                    return dict(answer)

    async def read(self, path: str, user_id: str, most: int, *, cut: bool = False) -> bytes:
        """A file's bytes, as `user_id`; of more than `most` the first `most` with `cut`.

        Redirects are not followed: homeservers make none where `allow_redirect` is not asked for
        (spec: Content repository), and what they lead to may be anything that we can reach.

        Raises:
            BodyTooLarge: there are more than `most` bytes, and no `cut`.
            MatrixRequestError: the homeserver said no.
            HomeserverUnavailable: it gave no whole answer in three tries, each of at most 30 s.
        """
        url = URL(self.url.rstrip("/") + "/" + path).with_query(user_id=user_id)
        reason = ""
        for pause in (*_READ_PAUSES, None):
            try:
                with self.calls.timed("media"):
                    async with asyncio.timeout(_READ_TIMEOUT):
                        return await self._read_once(url, most, cut=cut)
            except (aiohttp.ClientError, TimeoutError) as error:
                reason = _lost(error)
            except MatrixRequestError as error:
                if is_refusal(error) and error.http_status != TOO_MANY:
                    raise
                reason = reason_of(error)
            except ForeignAnswer as error:
                reason = str(error)
            if pause is not None:
                await asyncio.sleep(pause)
        raise HomeserverUnavailable(f"the homeserver does not give out a file: {reason}")

    async def _read_once(self, url: URL, most: int, *, cut: bool) -> bytes:
        headers = {"Authorization": f"Bearer {self._api.token}", "Accept-Encoding": "identity"}
        async with self._session.get(url, headers=headers, allow_redirects=False) as response:
            if 300 <= response.status < 400:
                raise Redirected(url, response.headers.get("Location", ""))
            if response.status != 200:
                raise request_error(response, answers.parsed(await answers.read_body(response)))
            if answers.is_page(response):
                raise ForeignAnswer("HTTP 200 with a page instead of the file")
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

    def _fault(self, error: Exception, retry: Retry, *, endless: bool, reads: bool) -> _Fault:
        """What is to be tried again, and when; raises `error` if it is not."""
        if isinstance(error, RateLimited):
            return _Fault("the homeserver does not answer: rate limited", error.pause, lost=False)
        if isinstance(error, MatrixRequestError):
            return self._worded(error, retry, endless=endless, reads=reads)
        self.outage.set()
        retry.failures = 0
        if isinstance(error, ForeignAnswer):
            self.foreign = not_of_matrix(str(error))
            return _Fault(self.foreign, misdirected=True)
        return _Fault(f"the homeserver does not answer: {_lost(error)}")

    def _worded(
        self, error: MatrixRequestError, retry: Retry, *, endless: bool, reads: bool
    ) -> _Fault:
        refused = is_refusal(error) or (reads and is_about_another(error))
        if refused and not (endless and is_misrouted(error)):
            raise error
        if error.http_status == _UNAUTHORIZED and error.errcode and not self._is_ours:
            raise error
        if not error.errcode:
            self.outage.set()
            self.foreign = refusal(error) if error.http_status < 500 else ""
        if not may_be_about_the_request(error):
            retry.failures = 0
        elif self.retries.is_hopeless(retry) and endless:
            raise error
        if error.http_status < 500:
            # Without an errcode a proxy answered, perhaps in the place of a lost answer.
            return _Fault(refusal(error), misdirected=True, lost=not error.errcode)
        is_own = may_be_about_the_request(error)
        return _Fault(f"the homeserver does not answer: {reason_of(error)}", is_own=is_own)

    async def _once(self, asked: Request) -> dict[str, Any]:
        used = self._api.token
        try:
            return await self._sent(asked)
        except MatrixRequestError as error:
            if not self._other_token or not is_about_token(error):
                raise
            # Another request may have found out meanwhile.
            if self._api.token == used:
                self._api.token, self._other_token = self._other_token, used
            return await self._sent(asked)

    async def _sent(self, asked: Request) -> dict[str, Any]:
        if asked.method is Method.GET:
            return dict(await self._api.ask(asked))
        deadline = await self._sure()
        self.writes += 1
        # The connection may be long in coming: what is not out by then is not to go out.
        async with asyncio.timeout_at(deadline) as limit:
            leaves = None if deadline is None else Leaves(deadline, limit)
            return dict(await self._api.ask(asked, leaves))


def _lost(error: Exception) -> str:
    """Why no answer came."""
    return answers.words(why_unreached(error)) + issuer_hint(error)


async def _recovered(recover: Recover | None) -> Mapping[str, Any] | None:
    try:
        return None if recover is None else await recover()
    except MatrixRequestError:
        return None
