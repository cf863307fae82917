"""An endpoint of the OpenAI API that streams what a test tells it to."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self, cast

from aiohttp import web

CUT = object()
"""In an answer: the connection is cut off here."""
HANG = object()
"""In an answer: nothing more comes until the client goes away."""

Step = dict[str, Any] | str | object


def words(*texts: str, **delta: str) -> list[Step]:
    """A whole answer in these pieces; `delta` stands in its first chunk."""
    fields = [{"content": text} for text in texts]
    fields[0] |= delta
    return [*(chunk(**one) for one in fields), chunk("stop"), "[DONE]"]


def chunk(finish: str | None = None, /, **delta: str) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return {"id": "c1", "object": "chat.completion.chunk", "choices": [choice]}


@dataclass
class FakeOpenAIApi:
    """Lists `models`, and answers each completion with the next of `answers`.

    An answer is an HTTP response, or a stream's steps: chunks, texts for `data:`, CUT, HANG.
    `app_server` adds the page by which an App Server is known, which first gives `info_answers`;
    `headers` are those of each request, their names in lower case.
    """

    models: Any = field(default_factory=lambda: [{"id": "ada"}, {"id": "bob"}])
    app_server: bool = False
    port: int = 0
    answers: list[Sequence[Step] | web.Response] = field(
        default_factory=list["Sequence[Step] | web.Response"]
    )
    info_answers: list[web.Response] = field(default_factory=list[web.Response])
    asked: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    headers: list[dict[str, str]] = field(default_factory=list[dict[str, str]])
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    _runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/chat/completions", self._complete)
        if self.app_server:
            app.router.add_get("/app-server-info", self._info)
        self._runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()
        self.port = int(self._runner.addresses[0][1])
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _info(self, _: web.Request) -> web.Response:
        if self.info_answers:
            return self.info_answers.pop(0)
        return web.json_response({"type": "app_server_info_response", "protocol_version": 1})

    async def _models(self, request: web.Request) -> web.Response:
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        if isinstance(self.models, web.Response):
            return self.models
        return web.json_response({"object": "list", "data": self.models})

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(cast("dict[str, Any]", await request.json()))
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        answer = self.answers.pop(0)
        if isinstance(answer, web.Response):
            return answer
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        try:
            for step in answer:
                if step is CUT:
                    assert request.transport is not None
                    request.transport.abort()
                elif step is HANG:
                    await asyncio.Event().wait()
                else:
                    data = step if isinstance(step, str) else json.dumps(step)
                    await response.write(f"data: {data}\n\n".encode())
        except (asyncio.CancelledError, ConnectionError):
            self.gone.set()
            raise
        return response


def refusal(status: int, message: str = "no", code: str = "", **headers: str) -> web.Response:
    """An error as the OpenAI API gives it."""
    body = {"error": {"message": message, "type": "e", "param": None, "code": code or None}}
    return web.json_response(body, status=status, headers=headers)
