"""Requests to an endpoint that speaks the OpenAI API, and what is known of it."""

import base64
import time
from collections import Counter
from typing import Any, cast
from urllib.parse import quote, urlsplit

import openai
from openai.types.chat import ChatCompletionChunk, ChatCompletionMessageParam

from letta_matrix.config import OpenAICompatibleRuntime
from letta_matrix.runtimes.json_fields import as_dict
from letta_matrix.runtimes.openai_compatible.faults import fault_of, is_gone
from letta_matrix.runtimes.protocol import Image, RuntimeUnavailable, TurnRequest

_PLAIN = "$!:@+=/-_.~"


class Endpoint:
    """One HTTP client. `keeps_turns` is True where the endpoint is known to be an App Server.

    An App Server joins a repeated `Idempotency-Key` to the turn that it started, and lets a
    turn run on when its client goes away. It remembers both only while its process lives:
    `died_at` is when nobody was seen listening at its address, in seconds since the epoch.
    """

    def __init__(self, config: OpenAICompatibleRuntime) -> None:
        key = config.api_key.get_secret_value() if config.api_key else ""
        parts = urlsplit(config.url)
        self.name = config.name
        self.url = config.url
        self.counters: Counter[str] = Counter()
        self.keeps_turns: bool | None = None
        self.died_at = 0.0
        self._info_url = f"{parts.scheme}://{parts.netloc}/app-server-info"
        self._client = openai.AsyncOpenAI(
            base_url=config.url,
            api_key=key or "none",
            max_retries=0,
            timeout=config.request_timeout,
            # Nothing of the environment's OpenAI account is for a server of somebody else.
            default_headers=cast(
                "dict[str, str]",
                {"OpenAI-Organization": openai.Omit(), "OpenAI-Project": openai.Omit()},
            ),
        )
        self._patience = openai.Timeout(config.request_timeout, read=None)

    async def close(self) -> None:
        await self._client.close()

    async def models(self) -> list[Any]:
        """The items of `GET /models`. Raises RuntimeUnavailable or RuntimeRefused."""
        await self.learn()
        try:
            items = as_dict(await self._get("/models")).get("data")
        except openai.APIStatusError as error:
            raise fault_of(error, self.name) from None
        if not isinstance(items, list):
            self.counters["malformed models"] += 1
            raise RuntimeUnavailable(
                f"{self.url}/models lists no models; is `url` the base URL of an OpenAI API?"
            )
        return cast("list[Any]", items)

    async def learn(self) -> None:
        """Find out what kind of endpoint this is, unless that is known."""
        if self.keeps_turns is not None:
            return
        try:
            info = as_dict(await self._get(self._info_url))
        except openai.APIStatusError:
            info = {}
        self.keeps_turns = "protocol_version" in info

    async def ask(
        self, request: TurnRequest, *, images: bool
    ) -> openai.AsyncStream[ChatCompletionChunk]:
        """Ask an agent. Raises what the client raises."""
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
            self.died_at = time.time()

    def unavailable(self, error: Exception) -> RuntimeUnavailable:
        """The exception for a connection that could not be made or broke."""
        reason = str(error.__cause__ or error) or type(error).__name__
        return RuntimeUnavailable(f"{self.name} cannot be reached at {self.url}: {reason}")

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
        except ValueError:
            return None


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
