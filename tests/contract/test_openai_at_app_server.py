"""Why the OpenAI-compatible adapter says of an App Server that turns cannot be cancelled."""

from collections.abc import AsyncGenerator

import pytest
from tests.contract.places import Place, openai_place
from tests.contract.turns import counting, new_turn
from tests.servers import LettaServer
from tests.stub_model import StubModel

from letta_matrix.runtimes.protocol import StopReason, TurnFinished


@pytest.fixture
async def place(app_server: LettaServer, stub_model: StubModel) -> AsyncGenerator[Place]:
    async with openai_place(app_server, stub_model) as made, made.adapters():
        yield made


async def test_a_turn_goes_on_when_its_stream_is_closed(place: Place) -> None:
    runtime = await place.open()
    turn = await new_turn(place, runtime, "steps:9")
    running = turn.start(runtime)
    await turn.has_said(1)
    assert not runtime.capabilities.cancel
    await runtime.cancel_turn(place.agent_id, turn.request.conversation_id)
    await running
    assert turn.end == TurnFinished(StopReason.CANCELLED)
    assert turn.text == counting(1)
    await (await new_turn(place, runtime, "meanwhile")).run(runtime)
    place.steps.finish(turn.request.text)
    turn.state = None
    await turn.run(runtime)
    assert turn.text == counting(9), "the App Server stopped: `cancel` is possible after all"
    assert place.count(turn.request.text) == 1
