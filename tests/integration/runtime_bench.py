"""An App Server runtime on the bench: its keeper, an agent and a conversation."""

import asyncio
import itertools
import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import aiohttp
from tests.stub_model import MODEL_ID
from tests.waiting import Clock, deadline, eventually

from letta_matrix.common.tools import ToolHandler, ToolSpec
from letta_matrix.config import AppServerRuntime
from letta_matrix.runtimes.app_server import AppServer
from letta_matrix.runtimes.app_server.connection import Connection
from letta_matrix.runtimes.app_server.keepers import local_keeper
from letta_matrix.runtimes.faults import RuntimeUnavailable
from letta_matrix.runtimes.protocol import (
    ApprovalRequested,
    Image,
    TextDelta,
    TurnEvent,
    TurnRequest,
    TurnState,
)

MODEL = f"openai-compatible/{MODEL_ID}"
ROOT = Path(__file__).parents[2]
CLIENT = ("-m", "tests.integration.turn_client")
CLIENT_KEYS = ("agent_id", "conversation_id", "message_id", "text")


@dataclass
class Saved:
    """A turn's state as the bridge would store it."""

    state: TurnState | None = None

    async def save(self, state: TurnState) -> None:
        self.state = json.loads(json.dumps(dict(state)))


@dataclass
class Bench:
    """A runtime with a keeper, an agent and a conversation. `answers` are the
    approvals that were answered, by their ids."""

    runtime: AppServer
    url: str
    socket: Path
    agent_id: str
    conversation_id: str
    saved: Saved = field(default_factory=Saved)
    answers: list[str] = field(default_factory=list[str])

    @property
    def connection(self) -> Connection:
        return vars(self.runtime)["_connection"]

    def request(
        self, text: str, conversation_id: str = "", images: tuple[Image, ...] = ()
    ) -> TurnRequest:
        message_id = f"${secrets.token_hex(8)}:localhost"
        talk = conversation_id or self.conversation_id
        return TurnRequest(self.agent_id, talk, message_id, text, images)

    async def turn(self, request: TurnRequest, state: TurnState | None = None) -> list[TurnEvent]:
        return [event async for event in self.runtime.run_turn(request, state, self.saved.save)]

    async def answered(
        self,
        request: TurnRequest,
        state: TurnState | None = None,
        *,
        allow: bool = True,
    ) -> list[TurnEvent]:
        """Run or follow a turn, answering what it asks for."""
        events: list[TurnEvent] = []
        async for event in self.runtime.run_turn(request, state, self.saved.save):
            events.append(event)
            if isinstance(event, ApprovalRequested):
                await self.runtime.answer_approval(request, event.approval_id, allow=allow)
                self.answers.append(event.approval_id)
        return events

    async def turn_with(
        self, request: TurnRequest, kind: type[TurnEvent], do: Callable[[], object]
    ) -> list[TurnEvent]:
        """Run a turn and do something when the first event of this kind has come."""
        events: list[TurnEvent] = []
        async for event in self.runtime.run_turn(request, None, self.saved.save):
            if isinstance(event, kind) and not any(isinstance(one, kind) for one in events):
                do()
            events.append(event)
        return events

    async def asked(self, request: TurnRequest) -> ApprovalRequested:
        """Run a turn up to its approval, and stop following it."""
        events = self.runtime.run_turn(request, None, self.saved.save)
        async for event in events:
            if isinstance(event, ApprovalRequested):
                await events.aclose()
                return event
        raise AssertionError("nothing was asked")

    async def cancel(self) -> None:
        await self.runtime.cancel_turn(self.agent_id, self.conversation_id)

    async def silence(self, clock: Clock, over: Callable[[], object]) -> None:
        """Let time pass until something has happened, but not while the adapter waits for an
        answer, which must not come too late."""

        def look() -> object:
            if not vars(self.connection)["_asked"]:
                clock.advance(0.5)
            return over()

        await eventually(look)

    async def offered(self) -> None:
        """Wait until the App Server has our tools on a new connection."""
        await eventually(lambda: not vars(self.connection)["_tasks"])

    async def say(self, text: str) -> str:
        return text_of(await self.turn(self.request(text)))

    async def restart(
        self, offer: tuple[Sequence[ToolSpec], ToolHandler] | None = None
    ) -> AppServer:
        """A new adapter on the same keeper in place of the bench's, as after a restart."""
        await self.runtime.close()
        settings = AppServerRuntime.model_validate({"url": self.url, "speech_interval": 0.01})
        self.runtime = AppServer(settings, local_keeper(settings, self.socket))
        if offer is not None:
            self.runtime.offer_tools(*offer)
        await self.runtime.start()
        await connected(self.runtime)
        return self.runtime

    async def replace_keeper(self) -> None:
        """SIGKILL it; the adapter starts another one."""
        life = self.connection.link.life
        os.kill(self.keeper_pid(), signal.SIGKILL)
        await eventually(lambda: self.connection.link.up and self.connection.link.life != life)

    def keeper_pid(self) -> int:
        return int(self.socket.with_name(self.socket.name + ".pid").read_text())


def text_of(events: list[TurnEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def words(count: int) -> str:
    return "".join(f"word{number} " for number in range(1, count + 1)).strip()


async def connected(runtime: AppServer) -> None:
    async def reached() -> bool:
        with suppress(RuntimeUnavailable):
            await runtime.list_agents()
            return True
        return False

    await eventually(reached, what="the App Server is reached: it")


async def client_until(
    bench: Bench, request: TurnRequest, state_file: Path, word: bytes, times: int = 1, **more: str
) -> bytes:
    """Run the turn in a process of its own, SIGKILL that when it has written `times` lines with
    `word`, and return all it wrote."""
    options = {key: str(getattr(request, key)) for key in CLIENT_KEYS} | more
    options |= {"url": bench.url, "socket": str(bench.socket), "state": str(state_file)}
    process = await asyncio.create_subprocess_exec(
        sys.executable, *CLIENT, json.dumps(options), stdout=subprocess.PIPE, cwd=ROOT
    )
    assert process.stdout is not None
    written = b""
    async with deadline():
        while written.count(word) < times:
            line = await process.stdout.readline()
            assert line, written
            written += line
    with suppress(ProcessLookupError):
        process.kill()
    written += await process.stdout.read()
    await process.wait()
    return written


@dataclass
class Client:
    """Another client of the App Server, that speaks its protocol by hand."""

    bench: Bench
    frames: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    _prompts: dict[int, str] = field(default_factory=dict[int, str])

    async def __aenter__(self) -> Self:
        session = await self._stack.enter_async_context(aiohttp.ClientSession())
        self.socket = await session.ws_connect(f"{self.bench.url}/ws", max_msg_size=0)
        self._reader = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._reader.cancel()
        await self.socket.close()
        await self._stack.aclose()

    async def ask(self, kind: str, **fields: object) -> dict[str, Any]:
        """A request's answer."""
        number = f"other-{next(self._numbers)}"
        await self.socket.send_json({"type": kind, "request_id": number, **fields})
        return await self.until(0, lambda frame: frame.get("request_id") == number)

    async def start(self, conversation_id: str, **fields: object) -> dict[str, str]:
        """Subscribe to a conversation of the bench's agent."""
        scope = {"agent_id": self.bench.agent_id, "conversation_id": conversation_id}
        answer = await self.ask("runtime_start", **scope, mode="standard", **fields)
        assert answer["success"], answer
        return scope

    async def begin(
        self, text: str, conversation_id: str = "", **fields: object
    ) -> tuple[dict[str, str], int]:
        """Begin a turn: where, and from which frame on it shows. What another client did there just
        before may be in the midst of its end: it is taken up after that."""
        scope = await self.start(conversation_id or self.bench.conversation_id, **fields)
        mark, own = len(self.frames), secrets.token_hex(8)
        message = {"role": "user", "content": text, "client_message_id": own}
        payload = {"kind": "create_message", "messages": [message]}

        async def is_taken() -> bool:
            return (await self.ask("input", runtime=scope, payload=payload))["accepted"]

        await eventually(is_taken, what="the input is taken")
        self._prompts[mark] = own
        return scope, mark

    async def end(self, scope: dict[str, str], mark: int) -> str:
        """Wait for the end of the turn that was begun there, or else of the next one; what was
        said in it."""
        own = self._prompts.get(mark)

        def ended(frame: dict[str, Any]) -> bool:
            over = frame["type"] == "turn_finished" and frame["runtime"] == scope
            return over and (own is None or frame.get("run_id") in self._runs_of(own))

        await self.until(mark, ended)
        return self.said(mark)

    def _runs_of(self, prompt: str) -> set[str]:
        told = [frame["loop_status"] for frame in self.frames if "loop_status" in frame]
        runs = [one.get("client_message_ids_by_run_id", {}).items() for one in told]
        return {run for some in runs for run, prompts in some if prompt in prompts}

    def said(self, mark: int) -> str:
        """What agents have said since `mark`."""
        deltas = [frame.get("delta", {}) for frame in self.frames[mark:]]
        said = [delta for delta in deltas if delta.get("message_type") == "assistant_message"]
        return "".join(part["text"] for delta in said for part in delta["content"])

    async def say(
        self, text: str, conversation_id: str = "", *, approve: bool = False, **fields: object
    ) -> str:
        """Run a turn; what was said in it."""
        scope, mark = await self.begin(text, conversation_id, **fields)
        if approve:
            await self.approve(scope, mark)
        return await self.end(scope, mark)

    async def approve(self, scope: dict[str, str], mark: int) -> None:
        asked = await self.until(mark, lambda frame: frame["type"] == "control_request")
        answer = {"request_id": asked["request_id"], "decision": {"behavior": "allow"}}
        await self.ask("input", runtime=scope, payload={"kind": "approval_response", **answer})

    async def until(self, mark: int, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        found = await eventually(lambda: next(filter(wanted, self.frames[mark:]), None))
        assert found is not None
        return found

    async def _read(self) -> None:
        async for message in self.socket:
            self.frames.append(json.loads(message.data))
