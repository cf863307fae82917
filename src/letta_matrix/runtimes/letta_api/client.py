"""Requests to a Letta API through letta-client; JSON in and out, faults for every error.

The package's models are passed by: they cost time per token, and they turn unknown or
malformed fields into surprises.
"""

from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, aclosing
from functools import partial
from typing import Any, Literal, cast

import httpx
from letta_client import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    AsyncLetta,
    DefaultAsyncHttpxClient,
)

from letta_matrix.common.connections.unreached import why_unreached
from letta_matrix.common.json_fields import Json, mapping, parse_json
from letta_matrix.common.loopback import is_loopback
from letta_matrix.common.sureness import Sure
from letta_matrix.config.runtimes import LettaApiRuntime
from letta_matrix.runtimes.bounds import bound
from letta_matrix.runtimes.error_lines import foreign, is_foreign
from letta_matrix.runtimes.faults import (
    AgentGone,
    RuntimeBusy,
    RuntimeFault,
    RuntimeRefused,
    RuntimeUnavailable,
)
from letta_matrix.runtimes.letta_api.errors import (
    NotReached,
    NotStreamable,
    fault_of,
    reason_of,
)
from letta_matrix.runtimes.letta_api.pages import PAGE, identity, pages
from letta_matrix.runtimes.letta_api.sse import StreamEvent, read_events

STREAM_SILENCE = 90.0
"""Seconds without a byte after which a stream counts as broken; pings come every 30 s."""
RUN_MESSAGES = 100
MAX_PAGES = 20
_SILENT = "did not answer in time"
_UNSENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)

Response = Awaitable[Any]
Stream = AsyncGenerator[StreamEvent]
Meanings = Mapping[int, type[RuntimeRefused]]
"""What an HTTP status means for one kind of request, where that is more than usual."""


class _Missing(RuntimeRefused):
    """The server has nothing of that id."""


_PLAIN: Meanings = {}
_AGENT_MISSING: Meanings = {404: AgentGone}
_STREAM_OVER: Meanings = {400: NotStreamable, 404: NotStreamable, 410: NotStreamable}


class _Api(AsyncLetta):
    """The package's client, which sends nothing of the environment: no key or header that is
    another server's (`LETTA_API_KEY`, `LETTA_CUSTOM_HEADERS`), and nothing through a proxy that
    could not reach this machine. It follows no redirect, which would take a prompt elsewhere."""

    def __init__(self, url: str, key: str, patience: float) -> None:
        remote = not is_loopback(httpx.URL(url).host)
        super().__init__(
            api_key=key,
            base_url=url.rstrip("/").removesuffix("/v1"),
            timeout=httpx.Timeout(patience),
            max_retries=0,
            http_client=DefaultAsyncHttpxClient(
                follow_redirects=False, trust_env=remote, event_hooks={"response": [bound]}
            ),
        )
        self.api_key = key or None
        self._custom_headers = {}


class Client:
    """One server. Nothing is retried here: a POST repeated blindly would prompt twice.

    It is `sure` before each request that changes something. `secrets` are what nothing that a
    server says may repeat to a person.
    """

    def __init__(self, config: LettaApiRuntime, counters: Counter[str], sure: Sure) -> None:
        self._sure = sure
        self._place = f"the Letta API {config.name!r}"
        self._counters = counters
        key = config.api_key.get_secret_value() if config.api_key else ""
        self.secrets = (key,)
        self._api = _Api(config.url, key, config.request_timeout)
        self._raw = self._api.with_raw_response
        self._streaming = self._api.with_streaming_response
        self._stream_timeout = httpx.Timeout(config.request_timeout, read=STREAM_SILENCE)

    async def close(self) -> None:
        await self._api.close()

    async def agents(
        self,
        order_by: Literal["created_at", "updated_at"],
        order: Literal["asc", "desc"],
        after: str | None = None,
    ) -> list[Json]:
        """One page of at most `PAGE` agents."""
        sorting = {"order_by": order_by, "order": order}
        return await self._list(self._raw.agents.list, after=after, limit=PAGE, **sorting)

    async def create_agent(self, fields: Mapping[str, Any]) -> Json:
        await self._sure()
        return await self._object(self._raw.agents.create(**fields))

    async def has_agent(self, agent_id: str) -> bool:
        try:
            await self._call(self._raw.agents.retrieve(agent_id), _AGENT_MISSING)
        except AgentGone:
            return False
        return True

    async def update_agent(self, agent_id: str, fields: Mapping[str, Any]) -> None:
        await self._sure()
        await self._call(self._raw.agents.update(agent_id, **fields), _AGENT_MISSING)

    async def delete_agent(self, agent_id: str) -> None:
        await self._sure()
        await self._call(self._raw.agents.delete(agent_id), _AGENT_MISSING)

    async def models(self) -> list[Json]:
        return await self._list(self._raw.models.list)

    async def create_conversation(self, agent_id: str, title: str) -> Json:
        await self._sure()
        call = self._raw.conversations.create(agent_id=agent_id, summary=title)
        return await self._object(call, _AGENT_MISSING)

    async def conversation_messages(
        self, conversation_id: str, after: str | None = None
    ) -> list[Json]:
        """One page of at most `PAGE` messages, newest first."""
        messages = self._raw.conversations.messages.list
        return await self._list(messages, conversation_id, after=after, limit=PAGE, order="desc")

    async def cancel(self, conversation_id: str) -> bool:
        """Whether something ran there and was told to stop."""
        await self._sure()
        try:
            await self._call(self._raw.conversations.cancel(conversation_id))
        except RuntimeBusy:
            return False
        return True

    async def runs(
        self, agent_id: str, *, order: Literal["asc", "desc"], after: str | None = None
    ) -> list[Json]:
        """One page of at most `PAGE` runs by the time they began."""
        runs = self._raw.runs.list
        return await self._list(runs, after=after, agent_id=agent_id, order=order, limit=PAGE)

    async def run(self, run_id: str) -> Json | None:
        """A run as it stands; None if the server has none of that id."""
        try:
            return await self._object(self._raw.runs.retrieve(run_id), {404: _Missing})
        except _Missing:
            return None

    async def run_messages(self, run_id: str) -> list[Json]:
        """A run's stored messages in order, prompt included."""
        messages = self._raw.runs.messages.list
        page_after = partial(self._list, messages, run_id, limit=RUN_MESSAGES, order="asc")
        found: dict[tuple[str, ...], Json] = {}
        async for page in pages(page_after, MAX_PAGES, RUN_MESSAGES):
            found |= {identity(item): item for item in page}
        return list(found.values())

    async def send(self, conversation_id: str, message: Json) -> Stream:
        """Send a message as a background run and stream the run from its beginning.

        With the same `otid` in the message the server gives the same run again.
        """
        await self._sure()
        request = self._streaming.conversations.messages.create(
            conversation_id,
            messages=[cast("Any", message)],
            streaming=True,
            background=True,
            stream_tokens=True,
            include_pings=True,
            timeout=self._stream_timeout,
        )
        async with aclosing(self._stream(request)) as events:
            async for event in events:
                yield event

    def follow(self, run_id: str) -> Stream:
        """Stream a background run from its beginning. Raises NotStreamable if that is over."""
        request = self._streaming.runs.messages.stream(
            run_id, starting_after=0, include_pings=True, timeout=self._stream_timeout
        )
        return self._stream(request, _STREAM_OVER)

    async def _stream(
        self, request: AbstractAsyncContextManager[Any], meanings: Meanings = _PLAIN
    ) -> Stream:
        try:
            async with request as response:
                chunks = cast("AsyncGenerator[bytes]", response.iter_bytes())
                async with aclosing(read_events(chunks, self._counters)) as events:
                    async for event in events:
                        yield event
        except (APIStatusError, APIConnectionError, httpx.HTTPError, httpx.StreamError) as error:
            raise self._fault(error, meanings) from None

    async def _list(
        self, listing: Callable[..., Response], *of: str, after: str | None = None, **options: Any
    ) -> list[Json]:
        """The items; one that is no object is empty, for the length of a page tells its place."""
        begin = {"after": after} if after else {}
        answer = await self._call(listing(*of, **options, **begin))
        if not isinstance(answer, list):
            raise self._malformed()
        items = [mapping(item) for item in cast("list[object]", answer)]
        if odd := items.count({}):
            self._counters["malformed list item"] += odd
        return items

    async def _object(self, call: Response, meanings: Meanings = _PLAIN) -> Json:
        answer = await self._call(call, meanings)
        if not isinstance(answer, dict):
            raise self._malformed()
        return cast("Json", answer)

    async def _call(self, call: Response, meanings: Meanings = _PLAIN) -> object:
        try:
            body = cast("bytes", await (await call).read())
        except (APIStatusError, APIConnectionError, httpx.HTTPError) as error:
            raise self._fault(error, meanings) from None
        value = parse_json(body)
        if value is None and body.strip() not in (b"", b"null"):
            raise self._malformed()
        return value

    def _malformed(self) -> RuntimeUnavailable:
        self._counters["malformed answer"] += 1
        return RuntimeUnavailable(f"{self._place} gave an answer that makes no sense")

    def _fault(self, error: Exception, meanings: Meanings) -> RuntimeFault:
        if not isinstance(error, APIStatusError):
            late = isinstance(error, APITimeoutError | httpx.TimeoutException)
            kind = NotReached if isinstance(error.__cause__, _UNSENT) else RuntimeUnavailable
            why = why_unreached(error.__cause__ or error)
            return kind(f"{self._place} {_SILENT if late else f'cannot be reached: {why}'}")
        status, headers = error.status_code, error.response.headers
        if is_foreign(status, headers, error.response.content):
            return foreign(self._place, status, headers)
        meaning = meanings.get(status)
        # A model's handle that does not exist is a 404 too.
        if meaning is not None and "handle" not in reason_of(error.body).lower():
            what = "agent" if meaning is AgentGone else "run's stream"
            return meaning(f"{self._place} no longer has the {what}")
        return fault_of(self._place, status, error.body, headers, *self.secrets)
