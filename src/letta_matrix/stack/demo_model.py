"""The built-in demo model: an OpenAI-compatible server without any intelligence.

It says so, repeats what it was told word by word, and calls a tool when asked to
(`use Bash: ls`), so that everything around a model can be tried without one.
Runs as `python -m letta_matrix.stack.demo_model --port N`.
"""

import argparse
import asyncio
import hmac
import itertools
import json
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from aiohttp import web

from letta_matrix.common.connections.admission import Connections
from letta_matrix.common.connections.aiohttp_server import AiohttpServer
from letta_matrix.common.connections.descriptors import most_connections
from letta_matrix.common.json_fields import as_list, mapping
from letta_matrix.common.waiting import ended_by_signal
from letta_matrix.stack.models import DEMO_MODEL, demo_key

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

WORDS_PER_SECOND = 25.0
_MOST_WORDS = 5000
_IDLE = 75.0
"""Seconds that a connection may be idle behind a request."""
_FAREWELL = 1.0
"""Seconds that answers in progress have at the end."""
_THINKING = 8
"""Words' worth of time before the first: without it nobody sees an agent typing."""
_REMINDER = re.compile(r"<system-reminder>.*?</system-reminder>", re.DOTALL)
_CALLED = r"(?:@?[^\n:,]{1,60}[:,]\s+)?"
"""In a room with several people a message begins with the name of whom it is for."""
_USE = re.compile(
    rf"\s*{_CALLED}use\s+(?:the\s+)?(?:tool\s+)?`?(\w+)`?\s*:\s*(.*)", re.DOTALL | re.IGNORECASE
)
_OTHERS = "matrix_other_tools"
_ON_MATRIX = re.compile(r"matrix_\w+|list_agents|get_agent|wait_for_message", re.IGNORECASE)
"""Tools that letta-matrix shows to nobody at once, and how those are called."""
_WRITE = re.compile(rf"\s*{_CALLED}(?:please\s+)?write\s+(\d+)\s+words\b", re.IGNORECASE)
_ENVELOPE = re.compile(r"\A\[Matrix, [^\n]*:\n")
"""What letta-matrix puts before a person's words in a room with several people."""
_CONTEXT = re.compile(r"\A> \[Context, [^\n]*\n(?:>[^\n]*\n)*\n*")
"""What was said there before, likewise."""
_PLAINLY = "(I am only a demo and no language model.) "
_INTRODUCTION = (
    "Hello! I am only a demo and no language model: I repeat what I am told. "
    "You said:\n\n{said}\n\n"
    "To talk to a real model, stop the stack, and start it again with `OPENAI_API_KEY` or "
    "`ANTHROPIC_API_KEY` set, or with `--model-base-url`. Until then you can also try "
    "`write 200 words`, or a tool: `use Bash: date`."
)

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of one of the offered tools."""

    name: str
    arguments: Mapping[str, object]
    call_id: str = field(default_factory=lambda: f"call_{secrets.token_hex(8)}")


@dataclass(frozen=True, slots=True)
class Answer:
    """What the demo model says, and perhaps the tool it calls after it."""

    text: str
    call: ToolCall | None = None


def answer(body: Json) -> Answer:
    """The demo model's reply to the body of a chat completion request."""
    messages = as_list(body.get("messages"))
    if (returned := _tool_results(messages)) is not None:
        return Answer(_report(returned))
    said = _last_words(messages)
    first = not any(message.get("role") == "assistant" for message in messages)
    plainly = _PLAINLY if first else ""
    if match := _USE.fullmatch(said):
        return _use_tool(match[1], match[2].strip(), as_list(body.get("tools")), plainly)
    if match := _WRITE.match(said):
        return Answer(plainly + _numbered_words(int(match[1])))
    return Answer(_INTRODUCTION.format(said=_quote(said)) if first else f"You said: {said}")


def _last_words(messages: Sequence[Json]) -> str:
    for message in reversed(messages):
        if message.get("role") == "user" and (words := _own_words(message)):
            return _CONTEXT.sub("", _ENVELOPE.sub("", words))
    return ""


def _own_words(message: Json) -> str:
    """A message's text without what the App Server puts around a person's words."""
    content: object = message.get("content")
    if isinstance(content, str):
        return _REMINDER.sub("", content).strip()
    texts = (str(p.get("text", "")) for p in as_list(content) if p.get("type") == "text")
    kept = (_REMINDER.sub("", text).strip() for text in texts)
    return "\n".join(text for text in kept if text)


def _tool_results(messages: Sequence[Json]) -> list[str] | None:
    """The tool results that ended the conversation so far, None when there are none."""
    last = list(itertools.takewhile(lambda m: m.get("role") == "tool", reversed(messages)))
    return [_own_words(message) for message in reversed(last)] or None


def _report(results: Sequence[str]) -> str:
    shown = "\n\n".join(_fence(result.strip() or "(nothing)") for result in results)
    return f"The tool answered:\n\n{shown}"


def _use_tool(name: str, text: str, tools: Sequence[Json], plainly: str) -> Answer:
    offered = {str(f.get("name")): f for tool in tools if (f := mapping(tool.get("function")))}
    known = {offer.lower(): offer for offer in offered}
    if name.lower() not in known and _OTHERS in offered and _ON_MATRIX.fullmatch(name):
        given = {"name": name.lower(), "arguments": _arguments(text, {})}
        return Answer(f"{plainly}I call `{name}`. ", ToolCall(_OTHERS, given))
    if name.lower() not in known:
        names = ", ".join(f"`{offer}`" for offer in offered) or "none"
        return Answer(f"{plainly}I have no tool named `{name}`. The tools I was offered: {names}.")
    name = known[name.lower()]
    return Answer(f"{plainly}I call `{name}`. ", ToolCall(name, _arguments(text, offered[name])))


def _arguments(text: str, function: Json) -> Mapping[str, object]:
    """`text` as the tool's arguments: JSON as it is, else as the first text it requires."""
    try:
        given: object = json.loads(text)
    except ValueError:
        given = None
    if isinstance(given, dict):
        return cast("dict[str, object]", given)
    schema = mapping(function.get("parameters"))
    properties = mapping(schema.get("properties"))
    required = cast("list[str]", schema.get("required") or list(properties)[:1])
    texts = [key for key in required if mapping(properties.get(key)).get("type") == "string"]
    filled: dict[str, object] = dict.fromkeys(texts[1:], "asked for in the chat")
    return {**dict.fromkeys(texts[:1], text), **filled}


def _numbered_words(count: int) -> str:
    words = (f"word {number}," for number in range(1, min(count, _MOST_WORDS) + 1))
    return " ".join(words).rstrip(",") + "."


def _quote(text: str) -> str:
    return "\n".join(f"> {line}" for line in text.split("\n"))


def _fence(text: str) -> str:
    ticks = max((len(run) for run in re.findall(r"`{3,}", text)), default=2) + 1
    return f"{'`' * ticks}\n{text}\n{'`' * ticks}"


class DemoModel:
    """The HTTP side: `GET /v1/models`, `POST /v1/chat/completions`, for those who have the `key`
    if there is one."""

    def __init__(self, words_per_second: float = WORDS_PER_SECOND, key: str = "") -> None:
        self._expected = f"Bearer {key}".encode() if key else None
        self._pause = 1 / words_per_second if words_per_second > 0 else 0.0

    def application(self) -> web.Application:
        """The aiohttp application to serve."""
        application = web.Application(client_max_size=64 * 1024**2, middlewares=[self._known])
        application.router.add_get("/v1/models", self._models)
        application.router.add_post("/v1/chat/completions", self._complete)
        return application

    @web.middleware
    async def _known(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        given = request.headers.get("Authorization", "").encode(errors="surrogateescape")
        if self._expected is None or hmac.compare_digest(given, self._expected):
            return await handler(request)
        fault = {"message": "the demo model wants its key", "type": "authentication_error"}
        return web.json_response({"error": fault}, status=401)

    async def _models(self, _request: web.Request) -> web.Response:
        model = {"id": DEMO_MODEL, "object": "model", "created": 0, "owned_by": "letta-matrix"}
        return web.json_response({"object": "list", "data": [model]})

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        try:
            body: object = await request.json()
        except ValueError:
            body = None
        if not isinstance(body, dict):
            fault = {"message": "expected a JSON object", "type": "invalid_request_error"}
            return web.json_response({"error": fault}, status=400)
        asked = cast("dict[str, Any]", body)
        reply = answer(asked)
        if not asked.get("stream"):
            return web.json_response(_whole(reply))
        return await self._stream(request, reply)

    async def _stream(self, request: web.Request, reply: Answer) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        try:
            await asyncio.sleep(self._pause * _THINKING)
            for chunk, pause in _chunks(reply):
                await response.write(f"data: {json.dumps(chunk)}\n\n".encode())
                if pause and self._pause:
                    await asyncio.sleep(self._pause)
            await response.write(b"data: [DONE]\n\n")
        except ConnectionResetError:
            pass  # the asker went away; nobody is left to tell
        return response


def _chunks(reply: Answer) -> Iterator[tuple[Json, bool]]:
    """The stream's chunks, each with whether to pause after it."""
    head = {"id": _completion_id(), "created": int(time.time()), "model": DEMO_MODEL}
    head["object"] = "chat.completion.chunk"

    def chunk(delta: Json, finish: str | None = None) -> Json:
        return {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}

    yield chunk({"role": "assistant", "content": ""}), False
    for word in re.findall(r"\s*\S+\s*", reply.text):
        yield chunk({"content": word}), True
    if reply.call is not None:
        yield chunk({"tool_calls": [{"index": 0, **_tool_call(reply.call)}]}), False
    yield {**chunk({}, _finish_reason(reply)), "usage": _usage(reply)}, False


def _whole(reply: Answer) -> Json:
    message: dict[str, object] = {"role": "assistant", "content": reply.text}
    if reply.call is not None:
        message["tool_calls"] = [_tool_call(reply.call)]
    choice = {"index": 0, "message": message, "finish_reason": _finish_reason(reply)}
    return {
        "id": _completion_id(),
        "object": "chat.completion",
        "created": int(time.time()),
        "model": DEMO_MODEL,
        "choices": [choice],
        "usage": _usage(reply),
    }


def _tool_call(call: ToolCall) -> Json:
    function = {"name": call.name, "arguments": json.dumps(call.arguments)}
    return {"id": call.call_id, "type": "function", "function": function}


def _finish_reason(reply: Answer) -> str:
    return "tool_calls" if reply.call is not None else "stop"


def _usage(reply: Answer) -> Json:
    words = len(reply.text.split())
    return {"prompt_tokens": 0, "completion_tokens": words, "total_tokens": words}


def _completion_id() -> str:
    return f"chatcmpl-{secrets.token_hex(12)}"


def main() -> None:
    """Serve on loopback until terminated."""
    parser = argparse.ArgumentParser(description="letta-matrix's demo model")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--words-per-second", type=float, default=WORDS_PER_SECOND)
    parser.add_argument("--key-file", type=Path, help="the secret that askers must know")
    options = parser.parse_args()
    key = demo_key(options.key_file.read_text().strip()) if options.key_file else ""
    model = DemoModel(options.words_per_second, key)
    asyncio.run(_serve(model, options.port))


async def _serve(model: DemoModel, port: int) -> None:
    stop = ended_by_signal()
    connections = Connections(most_connections())
    server = AiohttpServer(model.application(), connections, keepalive=_IDLE, farewell=_FAREWELL)
    await server.start("127.0.0.1", port)
    await stop.wait()
    await server.close()


if __name__ == "__main__":
    main()
