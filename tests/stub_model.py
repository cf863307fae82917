"""An OpenAI-compatible model that does what the last user message says.

Words in the user's own text choose the behaviour:

    slow:N             N words, one every 0.1 s
    steps:N            N words, each but the first when the test says so (see tests/steps.py)
    tool:NAME:ARG      a call of tool NAME on the first request, a text after its result
                       (for Bash, ARG is the command; otherwise ARG is the arguments' JSON)
    tool2:NAME:ARG     the same call twice, one after the other, then the text
                       (with steps:N before it, what follows a result is a step)
    tools:NAME:[ARG, ...]  a call for each at once, as JSON, then a text after their results
    error:CODE         the HTTP error CODE
    cutoff             the connection breaks
    hang               no answer until the client goes away
    anything else      "echo: " and the text

Images that come with the message are told at the end: "I see 1 image(s)". The server also
looks like llama.cpp, to whose models the App Server gives images.

Runs as `python -m tests.stub_model --port N`, or in a test as
`async with StubModel() as model: model.url, model.requests, model.count("hello")`.
"""

import argparse
import asyncio
import json
import re
import time
from dataclasses import dataclass, field
from typing import Any, Self, cast

from aiohttp import web
from tests.steps import Steps, without_quotes

MODEL_ID = "stub-echo"
WORD_DELAY = 0.1
_REMINDER = re.compile(r"<system-reminder>.*?</system-reminder>", re.DOTALL)

Json = dict[str, Any]


@dataclass
class ModelRequest:
    """One request for a completion: when it came, the user's own words, the whole body, how
    many tools have answered since, and how many images came with the words."""

    at: float
    text: str
    body: Json
    results: int = 0
    images: int = 0

    @property
    def after_tool(self) -> bool:
        return self.results > 0


def message_text(message: Json) -> str:
    """A message's own words, without what the App Server adds around them."""
    content = message.get("content") or ""
    if not isinstance(content, str):
        parts = cast("list[Json]", content)
        content = "\n".join(str(part.get("text", "")) for part in parts)
    return _REMINDER.sub("", content).strip()


def read_request(body: Json) -> ModelRequest:
    """Find the last user message with words of its own, and whether a tool has answered it."""
    messages = cast("list[Json]", body.get("messages") or [])
    for index in range(len(messages) - 1, -1, -1):
        text = message_text(messages[index]) if messages[index].get("role") == "user" else ""
        if text:
            results = sum(later.get("role") == "tool" for later in messages[index + 1 :])
            images = _images(messages[index])
            return ModelRequest(time.monotonic(), text, body, results, images)
    return ModelRequest(time.monotonic(), "", body)


def _images(message: Json) -> int:
    content = message.get("content")
    parts = cast("list[Json]", content) if isinstance(content, list) else []
    return sum(part.get("type") == "image_url" for part in parts)


def _tool_results(body: Json, count: int) -> str:
    results = [m for m in cast("list[Json]", body["messages"]) if m.get("role") == "tool"]
    return " ".join(message_text(one)[:500] for one in results[-count:])


def _tool_calls(request: ModelRequest) -> list[Json]:
    match = re.search(r"tool([2s]?):(\w+):(.+)", request.text, re.DOTALL)
    if match is None or request.results >= (2 if match[1] == "2" else 1):
        return []
    argument = match[3].strip()
    arguments = json.loads(argument) if match[1] == "s" else [argument]
    return [{"index": place, **_call(match[2], one)} for place, one in enumerate(arguments)]


def _call(name: str, argument: str) -> Json:
    arguments = (
        json.dumps({"command": argument, "description": "a test command"})
        if name == "Bash"
        else argument
    )
    call_id = f"call_{time.monotonic_ns()}"
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def _words(request: ModelRequest) -> tuple[list[str], float]:
    if request.after_tool:
        count = request.results if "tools:" in request.text else 1
        return [f"tool said: {_tool_results(request.body, count)}"], 0
    if match := re.search(r"\bslow:(\d+)", request.text):
        return _numbered(int(match[1])), WORD_DELAY
    if count := Steps.asked_for(request.text):
        return _numbered(count), 0
    seen = [f" I see {request.images} image(s)"] if request.images else []
    return ["echo: ", request.text, *seen], 0


def _numbered(count: int) -> list[str]:
    return [f"word{number} " for number in range(1, count + 1)]


@dataclass(repr=False)
class StubModel:
    """The server; port 0 takes any free port."""

    port: int = 0
    requests: list[ModelRequest] = field(default_factory=list[ModelRequest])
    steps: Steps = field(default_factory=Steps)
    _runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """Base URL for an OpenAI client, with `/v1`."""
        return f"http://127.0.0.1:{self.port}/v1"

    def count(self, text: str) -> int:
        """How often the model was asked with `text` in the user's message, quotes and tool rounds
        apart."""
        asked = (one.text for one in self.requests if text in one.text and not one.after_tool)
        return sum(text in without_quotes(one) for one in asked)

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/models", self._native_models)
        app.router.add_post("/v1/chat/completions", self._completions)
        app.router.add_get("/requests", self._recorded)
        self._runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = int(self._runner.addresses[0][1])
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _models(self, _: web.Request) -> web.Response:
        model: Json = {"id": MODEL_ID, "object": "model", "created": 0, "owned_by": "stub"}
        return web.json_response({"object": "list", "data": [model]})

    async def _native_models(self, _: web.Request) -> web.Response:
        sight = {"input_modalities": ["text", "image"]}
        model = {"id": MODEL_ID, "architecture": sight, "status": {"value": "loaded"}}
        return web.json_response({"data": [model]})

    async def _recorded(self, _: web.Request) -> web.Response:
        return web.json_response(
            [{"text": request.text, "after_tool": request.after_tool} for request in self.requests]
        )

    async def _completions(self, http: web.Request) -> web.StreamResponse:
        body = cast("Json", await http.json())
        request = read_request(body)
        self.requests.append(request)
        if match := re.search(r"\berror:(\d{3})", request.text):
            error = {"message": "the stub model was told to fail", "type": "stub_error"}
            return web.json_response({"error": error}, status=int(match[1]))
        if re.search(r"\bcutoff\b", request.text) and http.transport is not None:
            http.transport.abort()
        if re.search(r"\b(?:hang|cutoff)\b", request.text):
            await asyncio.sleep(3600)
        if request.after_tool:
            await self.steps.reach(request.text, request.results)
        calls = _tool_calls(request)
        if body.get("stream"):
            return await self._stream(http, request, calls)
        return web.json_response(await _whole(request, calls))

    async def _stream(
        self, http: web.Request, request: ModelRequest, calls: list[Json]
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(http)
        if calls:
            await _send(response, {"role": "assistant", "tool_calls": calls})
        else:
            words, delay = _words(request)
            for place, word in enumerate(words):
                await self.steps.reach(request.text, place)
                await _send(response, {"role": "assistant", "content": word})
                await asyncio.sleep(delay)
        await _send(response, {}, finish="tool_calls" if calls else "stop")
        last: Json = {**_envelope("chat.completion.chunk"), "usage": _usage()}
        last["choices"] = []
        await response.write(f"data: {json.dumps(last)}\n\ndata: [DONE]\n\n".encode())
        return response


async def _whole(request: ModelRequest, calls: list[Json]) -> Json:
    words, delay = _words(request)
    message: Json = {"role": "assistant", "content": None if calls else "".join(words)}
    if calls:
        message["tool_calls"] = calls
    else:
        await asyncio.sleep(delay * len(words))
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if calls else "stop"}
    return {**_envelope("chat.completion"), "choices": [choice], "usage": _usage()}


async def _send(response: web.StreamResponse, delta: Json, finish: str | None = None) -> None:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    chunk = {**_envelope("chat.completion.chunk"), "choices": [choice]}
    await response.write(f"data: {json.dumps(chunk)}\n\n".encode())


def _envelope(kind: str) -> Json:
    return {"id": "chatcmpl-stub", "object": kind, "created": int(time.time()), "model": MODEL_ID}


def _usage() -> Json:
    return {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}


async def _serve(port: int) -> None:
    async with StubModel(port) as model:
        print(model.url, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    asyncio.run(_serve(parser.parse_args().port))
