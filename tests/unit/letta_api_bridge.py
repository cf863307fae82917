"""A bridge's part in the turns of a Letta API, for tests of the adapter."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.fake_letta_api import FakeLettaApi
from tests.waiting import eventually

from letta_matrix.config.runtimes import LettaApiRuntime
from letta_matrix.runtimes.letta_api import LettaApi
from letta_matrix.runtimes.protocol import (
    TextDelta,
    TurnEvent,
    TurnFinished,
    TurnRequest,
    TurnState,
)


def adapter(server: FakeLettaApi, key: str = "") -> LettaApi:
    settings = {"type": "letta_api", "url": server.url, "api_key": key or server.key or None}
    return LettaApi(LettaApiRuntime.model_validate(settings))


@dataclass
class Bridge:
    """A bridge's part: what it saved of a turn, and the adapter that it can drop."""

    server: FakeLettaApi
    runtime: LettaApi
    agent_id: str
    conversation_id: str
    states: dict[str, TurnState] = field(default_factory=dict[str, TurnState])

    def request(self, text: str, event: str = "$one") -> TurnRequest:
        return TurnRequest(self.agent_id, self.conversation_id, event, text)

    def follow(self, request: TurnRequest) -> AsyncGenerator[TurnEvent]:
        async def save(state: TurnState) -> None:
            self.states[request.message_id] = state

        return self.runtime.run_turn(request, self.states.get(request.message_id), save)

    async def run(self, request: TurnRequest) -> list[TurnEvent]:
        return [event async for event in self.follow(request)]

    async def reach(
        self, request: TurnRequest, kind: type[TurnEvent]
    ) -> asyncio.Task[list[TurnEvent]]:
        """Follow a turn in a task, which goes on once an event of this kind has come."""
        events: list[TurnEvent] = []

        async def follow() -> list[TurnEvent]:
            async for event in self.follow(request):
                events.append(event)
            return events

        task = asyncio.create_task(follow())
        await eventually(lambda: task.done() or any(isinstance(event, kind) for event in events))
        return task

    async def crash(self) -> None:
        """Go on with a new adapter, as after kill -9."""
        await self.runtime.close()
        self.runtime = adapter(self.server)


@asynccontextmanager
async def with_agent(port: int = 0) -> AsyncGenerator[Bridge]:
    """A server of its own with one agent, and a conversation with it."""
    async with FakeLettaApi(port) as server:
        runtime = adapter(server)
        agent_id = server.add_agent("Alpha")
        conversation_id = await runtime.create_conversation(agent_id, "a room")
        made = Bridge(server, runtime, agent_id, conversation_id)
        yield made
        await made.runtime.close()


def text_of(events: list[TurnEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def end_of(events: list[TurnEvent]) -> TurnFinished:
    assert isinstance(events[-1], TurnFinished)
    return events[-1]
