"""A real App Server on the stub model: its agents, and turns driven without letta-matrix."""

import asyncio
import itertools
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import aiohttp
from aiohttp import web
from tests.servers import LettaServer
from tests.stub_model import MODEL_ID, StubModel, read_request

Json = dict[str, Any]


@dataclass
class TimedModel(StubModel):
    """The stub model, and when each answer's stream ended (`time.monotonic()`), by its text."""

    ended: dict[str, float] = field(default_factory=dict[str, float])

    async def _completions(self, http: web.Request) -> web.StreamResponse:
        text = read_request(cast("Json", await http.json())).text
        try:
            return await super()._completions(http)
        finally:
            # Also where the App Server hung up as soon as it had everything.
            self.ended[text] = time.monotonic()

    def began(self, text: str) -> float:
        """When the model was asked `text`, which is when its first word left."""
        return next(request.at for request in self.requests if request.text == text)


@dataclass(frozen=True, slots=True)
class DirectTurn:
    """Seconds from the input frame to the first text and to `turn_finished`."""

    first: float
    full: float


@dataclass(frozen=True, slots=True)
class DirectApproval:
    """Seconds from the input frame to the question, and from its answer to `turn_finished`."""

    asked: float
    rest: float


class Letta:
    """One connection to an App Server, for the bench's own requests."""

    def __init__(self, server: LettaServer, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._url = server.url
        self._socket = socket
        self._numbers = itertools.count(1)
        self._answers: dict[str, asyncio.Future[Json]] = {}
        self._turn: asyncio.Queue[tuple[float, Json]] = asyncio.Queue()
        self._reader = asyncio.create_task(self._read())

    async def close(self) -> None:
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)
        await self._socket.close()

    async def create_agent(self, name: str) -> str:
        """A new agent that thinks with the stub model; its id."""
        body = {"name": name, "model": f"openai-compatible/{MODEL_ID}", "tags": list[str]()}
        return str((await self.request("agent_create", body=body))["agent"]["id"])

    async def rename(self, agent_id: str, name: str) -> None:
        await self.request("agent_update", agent_id=agent_id, body={"name": name})

    async def start_conversation(self, agent_id: str) -> Json:
        """A new conversation of an agent, subscribed; what `turn` takes."""
        body = {"agent_id": agent_id, "summary": "bench"}
        made = await self.request("conversation_create", body=body)
        scope = {"agent_id": agent_id, "conversation_id": made["conversation"]["id"]}
        client = {"name": "bench", "version": "0"}
        await self.request("runtime_start", **scope, mode="standard", client_info=client)
        return scope

    async def turn(self, conversation: Json, text: str, message_id: str) -> DirectTurn:
        """Run one turn and wait for its end. Raises TimeoutError."""
        started = await self._input(conversation, text, message_id)
        first = await self._until(_says)
        finished = await self._until(_is_end)
        return DirectTurn(first - started, finished - started)

    async def approved_turn(self, conversation: Json, text: str, message_id: str) -> DirectApproval:
        """Run one turn and allow at once the tool it asks for. Raises TimeoutError."""
        asked: list[str] = []

        def asks(frame: Json) -> bool:
            asked.append(str(frame.get("request_id", "")))
            return frame["type"] == "control_request"

        started = await self._input(conversation, text, message_id)
        asked_at = await self._until(asks)
        answered_at = time.monotonic()
        answer = {"request_id": asked[-1], "decision": {"behavior": "allow"}}
        payload = {"kind": "approval_response", **answer}
        await self._send("input", runtime=conversation, payload=payload)
        finished = await self._until(_is_end)
        return DirectApproval(asked_at - started, finished - answered_at)

    async def _input(self, conversation: Json, text: str, message_id: str) -> float:
        message = {"role": "user", "content": text, "client_message_id": message_id}
        payload = {"kind": "create_message", "messages": [message]}
        while not self._turn.empty():
            self._turn.get_nowait()
        started = time.monotonic()
        await self._send("input", runtime=conversation, payload=payload)
        return started

    async def _until(self, found: Callable[[Json], bool]) -> float:
        """When the next frame that `found` accepts came. Raises TimeoutError."""
        async with asyncio.timeout(30):
            while True:
                at, frame = await self._turn.get()
                if found(frame):
                    return at

    async def request(self, kind: str, **fields: object) -> Json:
        """A request and its answer. Raises RuntimeError when it is refused."""
        with self._expect() as (request_id, future):
            await self._send(kind, request_id=request_id, **fields)
            answer = await asyncio.wait_for(future, 30)
        if not answer.get("success"):
            raise RuntimeError(f"the App Server refused {kind}: {answer.get('error')}")
        return answer

    async def _send(self, kind: str, **fields: object) -> None:
        numbered = {"request_id": f"bench-{next(self._numbers)}", **fields}
        await self._socket.send_json({"type": kind, **numbered})

    @contextmanager
    def _expect(self) -> Generator[tuple[str, asyncio.Future[Json]]]:
        request_id = f"bench-{next(self._numbers)}"
        future = self._answers[request_id] = asyncio.get_running_loop().create_future()
        try:
            yield request_id, future
        finally:
            del self._answers[request_id]

    async def _read(self) -> None:
        async for message in self._socket:
            frame = cast("Json", message.json())
            at = time.monotonic()
            future = self._answers.get(str(frame.get("request_id", "")))
            if future is not None and not future.done():
                future.set_result(frame)
            elif frame.get("type") in ("stream_delta", "control_request", "turn_finished"):
                self._turn.put_nowait((at, frame))


def _says(frame: Json) -> bool:
    return cast("Json", frame.get("delta", {})).get("message_type") == "assistant_message"


def _is_end(frame: Json) -> bool:
    return frame["type"] == "turn_finished"


async def connect(server: LettaServer, http: aiohttp.ClientSession) -> Letta:
    """Connect to an App Server. Raises aiohttp.ClientError."""
    return Letta(server, await http.ws_connect(f"{server.url}/ws", max_msg_size=0))
