"""Why the OpenAI-compatible adapter says of an App Server that turns cannot be cancelled."""

import asyncio
import secrets
from collections.abc import AsyncGenerator

import pytest
from tests.contract.places import Place, forget, openai_place
from tests.servers import LettaServer
from tests.stub_model import StubModel

from letta_matrix.runtimes.protocol import (
    AgentRuntime,
    StopReason,
    TextDelta,
    TurnEvent,
    TurnFinished,
    TurnRequest,
)


@pytest.fixture
async def place(app_server: LettaServer, stub_model: StubModel) -> AsyncGenerator[Place]:
    async with openai_place(app_server, stub_model) as made, made.adapters():
        yield made


async def run(
    runtime: AgentRuntime, request: TurnRequest, spoke: asyncio.Event | None = None
) -> list[TurnEvent]:
    events: list[TurnEvent] = []
    async for event in runtime.run_turn(request, None, forget):
        events.append(event)
        if spoke is not None and isinstance(event, TextDelta):
            spoke.set()
    return events


def asking(place: Place, talk: str, text: str) -> TurnRequest:
    message_id = f"${secrets.token_hex(8)}:localhost"
    return TurnRequest(place.agent_id, talk, message_id, text)


async def test_a_turn_goes_on_when_its_stream_is_closed(place: Place) -> None:
    runtime = await place.open()
    talk = await runtime.create_conversation(place.agent_id, "a room")
    spoke = asyncio.Event()
    slow = asyncio.create_task(run(runtime, asking(place, talk, "slow:30"), spoke))
    await asyncio.wait_for(spoke.wait(), 20)
    assert not runtime.capabilities.cancel
    await runtime.cancel_turn(place.agent_id, talk)
    events = await slow
    assert events[-1] == TurnFinished(StopReason.CANCELLED)
    said = "".join(event.text for event in events if isinstance(event, TextDelta))
    assert 0 < len(said.split()) < 30
    later = asking(place, talk, f"later {secrets.token_hex(6)}")
    waiting = asyncio.create_task(run(runtime, later))
    await asyncio.sleep(0.5)
    assert place.count(later.text) == 0, "the App Server stopped: `cancel` is possible after all"
    events = await waiting
    assert TextDelta("text", later.text) in events
