"""The places where agents live that keep the runtimes' contract, alike for the tests."""

import json
import re
import secrets
from abc import ABC, abstractmethod
from base64 import b64decode
from collections.abc import AsyncGenerator, Generator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from tests.contract.relay import Relay
from tests.fake_letta_api import FakeLettaApi
from tests.servers import LettaServer, keeper_in
from tests.steps import Steps
from tests.stub_model import MODEL_ID, StubModel, message_text
from tests.waiting import deadline, eventually

from letta_matrix.common.json_fields import as_list
from letta_matrix.common.tools import ToolHandler, ToolSpec
from letta_matrix.config import AppServerRuntime, LettaApiRuntime, OpenAICompatibleRuntime
from letta_matrix.runtimes.app_server import AppServer
from letta_matrix.runtimes.app_server.keepers import local_keeper
from letta_matrix.runtimes.faults import RuntimeUnavailable
from letta_matrix.runtimes.letta_api import LettaApi
from letta_matrix.runtimes.memory import Answer, MemoryRuntime
from letta_matrix.runtimes.openai_compatible import OpenAICompatible, endpoint
from letta_matrix.runtimes.openai_compatible.listener import server_at
from letta_matrix.runtimes.protocol import (
    AgentRuntime,
    ApprovalRequested,
    StopReason,
    TextDelta,
    ToolReturned,
    ToolStarted,
    TurnEvent,
    TurnFinished,
    TurnRequest,
    TurnState,
)

MODEL = f"openai-compatible/{MODEL_ID}"


class Place(ABC):
    """A server whose agent obeys the words of tests/stub_model.py, and adapters to it of one
    kind of runtime. `steps` lets its words come, `loses_turns` tells that an outage may cost the
    turn that ran in it."""

    kind: str
    agent_id: str
    steps: Steps
    loses_turns = False

    def __init__(self) -> None:
        self._opened = AsyncExitStack()

    @asynccontextmanager
    async def adapters(self) -> AsyncGenerator["Place"]:
        """The place, for one test; the adapters opened in it are closed after it."""
        async with self._opened:
            yield self

    async def open(
        self, tool: ToolSpec | None = None, handler: ToolHandler | None = None
    ) -> AgentRuntime:
        """A new adapter, as a bridge has it that was just started; connected."""
        runtime = self.adapter()
        if tool is not None and handler is not None:
            runtime.offer_tools([tool], handler)
        self._opened.push_async_callback(runtime.close)
        await runtime.start()
        await eventually(lambda: _is_reached(runtime), what="the server is reached: it")
        return runtime

    @abstractmethod
    def adapter(self) -> AgentRuntime: ...

    @abstractmethod
    async def another_agent(self) -> str: ...

    @abstractmethod
    async def down(self) -> None:
        """The server cannot be reached until `up`."""

    @abstractmethod
    async def up(self) -> None: ...

    @abstractmethod
    def in_view(self, text: str) -> list[str]:
        """The messages of people that the agent had before it when it was asked `text` last."""

    @abstractmethod
    def seen(self, text: str) -> list[bytes]:
        """The images that the agent got with `text`."""

    @abstractmethod
    def count(self, text: str) -> int:
        """How often the agent was asked `text`."""

    def is_silent(self, runtime: AgentRuntime) -> bool:
        """Whether an adapter asks nothing just now, and may wait for time to pass."""
        return False

    async def say(self, text: str) -> None:
        """Let the agent say `text`, or an echo of it, by itself."""
        raise NotImplementedError

    async def use_tool(self, runtime: AgentRuntime, talk: str, name: str, word: str) -> str:
        """Let the agent call an offered tool with `{"word": word}`; what it then says."""
        text = f"tool:{name}:{json.dumps({'word': word})}"
        request = TurnRequest(self.agent_id, talk, f"${secrets.token_hex(8)}:localhost", text)
        events = [event async for event in runtime.run_turn(request, None, forget)]
        return "".join(event.text for event in events if isinstance(event, TextDelta))


async def forget(state: TurnState) -> None:
    """Saves nothing of a turn that nobody will follow again."""


async def _is_reached(runtime: AgentRuntime) -> bool:
    with suppress(RuntimeUnavailable):
        await runtime.list_agents()
        return True
    return False


class _ServerPlace(Place):
    """A place behind a network that can be cut."""

    def __init__(self, relay: Relay) -> None:
        super().__init__()
        self._relay = relay

    async def down(self) -> None:
        await self._relay.down()

    async def up(self) -> None:
        await self._relay.up()


class _StubPlace(_ServerPlace):
    """An App Server that thinks with the stub model."""

    def __init__(self, relay: Relay, model: StubModel, agent_id: str, server: LettaServer) -> None:
        super().__init__(relay)
        self.agent_id = agent_id
        self.steps = model.steps
        self._model = model
        self._server = server

    def count(self, text: str) -> int:
        return self._model.count(text)

    def in_view(self, text: str) -> list[str]:
        messages = self._last(text)["messages"]
        return [message_text(one) for one in messages if one.get("role") == "user"]

    def seen(self, text: str) -> list[bytes]:
        parts = as_list(self._last(text)["messages"][-1]["content"])
        urls = [part["image_url"]["url"] for part in parts if part.get("type") == "image_url"]
        return [b64decode(str(url).partition(",")[2]) for url in urls]

    def _last(self, text: str) -> dict[str, Any]:
        asked = [request.body for request in self._model.requests if text in request.text]
        return asked[-1]


class AppServerPlace(_StubPlace):
    """The App Server over its WebSocket and a keeper; a local one has no spare connection."""

    kind = "app_server"
    loses_turns = True

    def __init__(
        self, relay: Relay, model: StubModel, agent_id: str, server: LettaServer, socket: Path
    ) -> None:
        super().__init__(relay, model, agent_id, server)
        self._socket = socket

    async def another_agent(self) -> str:
        return await _make_agent(self._server)

    def adapter(self) -> AgentRuntime:
        url = f"ws://127.0.0.1:{self._relay.port}"
        settings = AppServerRuntime.model_validate({"url": url, "speech_interval": 0.01})
        return AppServer(settings, local_keeper(settings, self._socket))

    def is_silent(self, runtime: AgentRuntime) -> bool:
        return not vars(vars(runtime)["_connection"])["_asked"]

    async def say(self, text: str) -> None:
        """Another client asks the agent, in a conversation of its own."""
        async with self._server.app_server.control(self._server.http) as control:
            made = await control.request("conversation_create", body={"agent_id": self.agent_id})
            scope = {"agent_id": self.agent_id, "conversation_id": made["conversation"]["id"]}
            await control.request("runtime_start", **scope, mode="standard")
            message = {"role": "user", "content": text, "client_message_id": secrets.token_hex(8)}
            payload = {"kind": "create_message", "messages": [message]}
            socket = control._socket
            frame = {"type": "input", "request_id": "say", "runtime": scope, "payload": payload}
            await socket.send_json(frame)
            async with deadline():
                while json.loads((await socket.receive()).data).get("type") != "turn_finished":
                    pass


class OpenAIPlace(_StubPlace):
    """The App Server over its OpenAI API."""

    kind = "openai_compatible"

    async def another_agent(self) -> str:
        name = f"Grace {secrets.token_hex(4)}"
        await _make_agent(self._server, name)
        return name

    def adapter(self) -> AgentRuntime:
        url = f"http://127.0.0.1:{self._relay.port}/v1"
        given = {"type": "openai_compatible", "url": url}
        return OpenAICompatible(OpenAICompatibleRuntime.model_validate(given))


class LettaApiPlace(_ServerPlace):
    """The fake Letta API."""

    kind = "letta_api"

    def __init__(self, relay: Relay, api: FakeLettaApi) -> None:
        super().__init__(relay)
        self._api = api
        self.agent_id = api.add_agent("Ada")
        self.steps = api.steps

    async def another_agent(self) -> str:
        return self._api.add_agent("Grace")

    def adapter(self) -> AgentRuntime:
        url = f"http://127.0.0.1:{self._relay.port}"
        given = {"type": "letta_api", "url": url, "api_key": self._api.key}
        return LettaApi(LettaApiRuntime.model_validate(given))

    def count(self, text: str) -> int:
        return self._api.count(text)

    def in_view(self, text: str) -> list[str]:
        told = [
            [str(one["content"]) for one in talk.messages if one["message_type"] == "user_message"]
            for talk in self._api.conversations.values()
        ]
        return next(texts for texts in told if any(text in one for one in texts))

    def seen(self, text: str) -> list[bytes]:
        asked = [body["messages"][0] for body in self._api.bodies if text in json.dumps(body)]
        images = [part for part in as_list(asked[-1]["content"]) if part["type"] == "image"]
        return [b64decode(image["source"]["data"]) for image in images]

    async def say(self, text: str) -> None:
        run = self._api.say(self.agent_id, text)
        assert run.task is not None
        await run.task


class MemoryPlace(Place):
    """The in-memory runtime: all its adapters are one, for its agents live in it."""

    kind = "memory"

    def __init__(self) -> None:
        super().__init__()
        self._runtime = MemoryRuntime(agents=1, script=self._obey)
        self.agent_id = "agent-00000001-0000"
        self.steps = Steps()

    async def another_agent(self) -> str:
        return (await self._runtime.create_agent("Grace")).agent_id

    def adapter(self) -> AgentRuntime:
        return self._runtime

    async def down(self) -> None:
        self._runtime.available = False

    async def up(self) -> None:
        self._runtime.available = True

    def count(self, text: str) -> int:
        return sum(text in request.text for request in self._runtime.asked)

    def in_view(self, text: str) -> list[str]:
        asked = self._runtime.asked
        talk = self._last(text).conversation_id
        return [request.text for request in asked if request.conversation_id == talk]

    def seen(self, text: str) -> list[bytes]:
        return [image.data for image in self._last(text).images]

    async def say(self, text: str) -> None:
        self._runtime.say(self.agent_id, f"echo: {text}")

    async def use_tool(self, runtime: AgentRuntime, talk: str, name: str, word: str) -> str:
        """As if the turn had called it: scripts call no tools."""
        result = await self._runtime.call_tool(self.agent_id, talk, name, {"word": word})
        return f"tool said: {result.text}"

    def _last(self, text: str) -> TurnRequest:
        return [request for request in self._runtime.asked if text in request.text][-1]

    def _obey(self, request: TurnRequest) -> Generator[TurnEvent | float, Answer | None, None]:
        """A script that obeys as the stub model does, and asks before Bash."""
        text = request.text
        if match := re.search(r"\berror:(\d{3})", text):
            yield TurnFinished(StopReason.ERROR, f"the model answered HTTP {match[1]}")
            return
        if match := re.search(r"tool:Bash:(.+)", text):
            call, command = request.message_id, match[1].strip()
            answer = yield ApprovalRequested(f"approve {call}", "Bash", {"command": command}, True)
            allowed = answer is not None and answer.allow
            output = command.removeprefix("echo ") if allowed else answer.message if answer else ""
            yield ToolStarted(call, "Bash", json.dumps({"command": command}))
            yield ToolReturned(call, allowed, output)
            yield TextDelta("0", f"tool said: {output}")
        elif count := Steps.asked_for(text):
            for place in range(count):
                while not self.steps.reached(text, place):
                    yield 0.01
                yield TextDelta("0", f"word{place + 1} ")
        else:
            yield TextDelta("0", "echo: ")
            yield TextDelta("0", text)
        yield TurnFinished(StopReason.END_TURN)


@asynccontextmanager
async def app_server_place(
    server: LettaServer, model: StubModel, directory: Path
) -> AsyncGenerator[Place]:
    """See AppServerPlace; its keeper ends with it."""
    agent_id = await _make_agent(server)
    with keeper_in(directory) as socket:
        async with Relay(server.app_server.port) as relay:
            yield AppServerPlace(relay, model, agent_id, server, socket)


@asynccontextmanager
async def openai_place(server: LettaServer, model: StubModel) -> AsyncGenerator[Place]:
    """See OpenAIPlace. Its relay is a network, through which the adapter sees who listens."""
    name = f"Ada {secrets.token_hex(4)}"
    await _make_agent(server, name)

    def through_the_relay(_: str) -> str:
        return server_at(server.openai_url)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(endpoint, "server_at", through_the_relay)
        async with Relay(server.app_server.port) as relay:
            yield OpenAIPlace(relay, model, name, server)


@asynccontextmanager
async def letta_api_place() -> AsyncGenerator[Place]:
    """See LettaApiPlace."""
    async with FakeLettaApi() as api, Relay(api.port) as relay:
        yield LettaApiPlace(relay, api)


async def _make_agent(server: LettaServer, name: str = "Ada") -> str:
    async with server.app_server.control(server.http) as control:
        body: dict[str, object] = {"name": name, "model": MODEL, "tags": []}
        made = await control.request("agent_create", body=body)
    return str(made["agent"]["id"])
