"""Requests to an endpoint that speaks the OpenAI API, and what is known of it."""

import asyncio
import base64
import os
import secrets
import time
from collections import Counter
from typing import Any, cast
from urllib.parse import quote, urlsplit

import openai
from openai.types.chat import ChatCompletionChunk, ChatCompletionMessageParam

from letta_matrix.common.connections.unreached import why_unreached
from letta_matrix.common.json_fields import mapping
from letta_matrix.common.sureness import Sure
from letta_matrix.config import OpenAICompatibleRuntime
from letta_matrix.runtimes.bounds import bound
from letta_matrix.runtimes.error_lines import first_line
from letta_matrix.runtimes.faults import RuntimeFault, RuntimeUnavailable
from letta_matrix.runtimes.keeper.server import is_remote
from letta_matrix.runtimes.openai_compatible.faults import fault_of, is_gone, reason_of
from letta_matrix.runtimes.openai_compatible.listener import server_at
from letta_matrix.runtimes.protocol import Image, TurnRequest, TurnState

UNREADABLE = (ValueError, RecursionError)
"""What reading an answer as JSON raises."""
_KNOWS_PATHS = (200, 404, 405)
"""Statuses that tell whether a page exists; any other may be gone tomorrow."""
_PLAIN = "$!:@+=/-_.~"


class Endpoint:
    """One HTTP client. `keeps_turns` is True where the endpoint is known to be an App Server.

    An App Server joins a repeated `Idempotency-Key` to the turn that it started, and lets a
    turn run on when its client goes away. It remembers both only while its process lives; see
    `still_knows`. `is_local` tells that its address is on this machine.
    """

    def __init__(self, config: OpenAICompatibleRuntime, sure: Sure) -> None:
        self._sure = sure
        self._key = config.api_key.get_secret_value() if config.api_key else ""
        parts = urlsplit(config.url)
        self.name = config.name
        self.url = config.url
        self.counters: Counter[str] = Counter()
        self.keeps_turns: bool | None = None
        self.is_local = not is_remote(config.url)
        self._died_at = 0.0
        self._life = secrets.token_hex(8)
        self._info_url = f"{parts.scheme}://{parts.netloc}/app-server-info"
        self._client = openai.AsyncOpenAI(
            base_url=config.url,
            api_key=self._key or "none",
            max_retries=0,
            timeout=config.request_timeout,
            default_headers=_headers(self._key or "none"),
            http_client=openai.DefaultAsyncHttpxClient(
                # A redirect could lead messages and the key anywhere.
                follow_redirects=False,
                trust_env=not self.is_local,
                event_hooks={"response": [bound]},
            ),
        )
        self._patience = openai.Timeout(config.request_timeout, read=None)

    async def close(self) -> None:
        await self._client.close()

    async def models(self) -> list[Any]:
        """The items of `GET /models`. Raises RuntimeUnavailable or RuntimeRefused."""
        await self.learn()
        try:
            items = mapping(await self._get("/models")).get("data")
        except openai.APIStatusError as error:
            raise self.fault(error) from None
        if not isinstance(items, list):
            self.counters["malformed models"] += 1
            raise RuntimeUnavailable(
                f"{self.url}/models lists no models; is `url` the base URL of an OpenAI API?"
            )
        return cast("list[Any]", items)

    async def learn(self) -> None:
        """Find out what kind of endpoint this is, unless that is known.

        Raises RuntimeUnavailable.
        """
        if self.keeps_turns is not None:
            return
        try:
            told = await self._get(self._info_url)
        except openai.APIStatusError as error:
            if error.status_code not in _KNOWS_PATHS:
                return
            told = {}
        # A page that stands there for a while tells nothing.
        if isinstance(told, dict):
            self.keeps_turns = "protocol_version" in told

    async def place(self) -> dict[str, object]:
        """What `still_knows` needs of a turn that is asked now, as JSON."""
        return {"at": time.time(), "server": await self._server(), "life": self._life}

    async def still_knows(self, place: TurnState) -> bool:
        """Whether the process that was asked at `place` is still the one that would be asked.

        An App Server has no name for its life, so the process that listens is compared. Where
        that cannot be seen, only a place of this very object is believed: it has asked since,
        and found somebody there each time.
        """
        then, now = place.get("server"), await self._server()
        if then and now:
            return then == now
        at = place.get("at")
        known = place.get("life") == self._life
        return known and isinstance(at, float | int) and at > self._died_at

    async def ask(
        self, request: TurnRequest, *, images: bool
    ) -> openai.AsyncStream[ChatCompletionChunk]:
        """Ask an agent. Raises what the client raises."""
        await self._sure()
        try:
            return await self._client.chat.completions.create(
                model=request.agent_id,
                messages=[_message(request, images=images)],
                stream=True,
                extra_headers={
                    "X-Letta-Chat-Key": request.conversation_id,
                    "Idempotency-Key": quote(request.message_id, safe=_PLAIN),
                },
                timeout=self._patience,
            )
        except openai.APIError as error:
            self.note(error)
            raise

    def note(self, error: openai.APIError) -> None:
        """Remember that the endpoint was gone, if that is what an error means."""
        if is_gone(error):
            self._died_at = time.time()

    def unavailable(self, error: Exception) -> RuntimeUnavailable:
        """The exception for a connection that could not be made or broke."""
        line = first_line(why_unreached(error.__cause__ or error), self._key)
        return RuntimeUnavailable(f"{self.name} cannot be reached at {self.url}: {line}")

    def fault(self, error: openai.APIStatusError) -> RuntimeFault:
        """See `fault_of`."""
        return fault_of(error, self.name, self._key)

    def reason(self, error: openai.APIError) -> str:
        """See `reason_of`."""
        return reason_of(error, self._key)

    async def _server(self) -> str:
        return await asyncio.to_thread(server_at, self.url) if self.is_local else ""

    async def _get(self, url: str) -> object:
        """The JSON of an answer, None or a text for anything else.

        Raises RuntimeUnavailable, or APIStatusError for an HTTP error.
        """
        try:
            return await self._client.get(url, cast_to=object)
        except openai.APIConnectionError as error:
            self.note(error)
            raise self.unavailable(error) from None
        except openai.APIStatusError as error:
            self.note(error)
            raise
        except UNREADABLE:
            return None


def _headers(key: str) -> dict[str, str]:
    """Our key, and none of the headers that the package takes from the environment: nothing of
    the OpenAI account there is for a server of somebody else."""
    lines = os.environ.get("OPENAI_CUSTOM_HEADERS", "").split("\n")
    foreign = {line.partition(":")[0].strip() for line in lines}
    foreign = {name for name in foreign if name and name.lower() != "authorization"}
    omitted = dict.fromkeys(["OpenAI-Organization", "OpenAI-Project", *foreign], openai.Omit())
    return cast("dict[str, str]", {**omitted, "Authorization": f"Bearer {key}"})


def _message(request: TurnRequest, *, images: bool) -> ChatCompletionMessageParam:
    if not images:
        return {"role": "user", "content": request.text}
    return {
        "role": "user",
        "content": [
            {"type": "text", "text": request.text},
            *(
                {"type": "image_url", "image_url": {"url": _data_url(image)}}
                for image in request.images
            ),
        ],
    }


def _data_url(image: Image) -> str:
    return f"data:{image.media_type};base64,{base64.b64encode(image.data).decode()}"
