"""A replica whose place was taken while it was asleep asks no runtime for anything when it wakes
up."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress

import pytest
from tests.fake_letta_api import FakeLettaApi
from tests.unit.fake_openai_api import FakeOpenAIApi
from tests.waiting import settled, within

from letta_matrix.config.runtimes import LettaApiRuntime, OpenAICompatibleRuntime
from letta_matrix.runtimes.letta_api import LettaApi
from letta_matrix.runtimes.openai_compatible import OpenAICompatible
from letta_matrix.runtimes.protocol import AgentRuntime, TurnRequest, TurnState


class Seat:
    """Ours until it is `lost`; `asked` is set by who waits to be sure of it."""

    def __init__(self) -> None:
        self.lost = False
        self.asked = asyncio.Event()

    async def sure(self) -> None:
        if self.lost:
            self.asked.set()
            await asyncio.Event().wait()


@pytest.fixture
async def letta() -> AsyncGenerator[FakeLettaApi]:
    async with FakeLettaApi() as server:
        yield server


async def waits(seat: Seat, work: Awaitable[object]) -> None:
    """It is held up by the seat; and ended, as all is that a replica does."""
    task = asyncio.ensure_future(work)
    await within(seat.asked.wait())
    await settled()
    assert not task.done()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    seat.asked.clear()


async def asked(runtime: AgentRuntime, seat: Seat, request: TurnRequest) -> None:
    async def save(_: TurnState) -> None:
        # Between this and the request it is stopped.
        seat.lost = True

    async for _ in runtime.run_turn(request, None, save):
        pass


async def test_an_endpoint_gets_no_prompt() -> None:
    seat = Seat()
    async with FakeOpenAIApi() as api:
        settings = OpenAICompatibleRuntime.model_validate(
            {"type": "openai_compatible", "url": api.url}
        )
        runtime = OpenAICompatible(settings, seat.sure)
        await waits(seat, asked(runtime, seat, TurnRequest("ada", "chat-1", "$1", "hello")))
        await runtime.close()
        assert api.asked == []


async def test_a_letta_api_gets_nothing_that_changes_it(letta: FakeLettaApi) -> None:
    seat = Seat()
    given = {"type": "letta_api", "url": letta.url, "api_key": letta.key}
    runtime = LettaApi(LettaApiRuntime.model_validate(given), seat.sure)
    ada = letta.add_agent("Ada")
    room = await runtime.create_conversation(ada, "a room")
    await waits(seat, asked(runtime, seat, TurnRequest(ada, room, "$1", "hello")))
    changes: list[Callable[[], Awaitable[object]]] = [
        lambda: runtime.create_agent("Bo"),
        lambda: runtime.rename_agent(ada, "Bo"),
        lambda: runtime.set_model(ada, "another"),
        lambda: runtime.create_conversation(ada, "another"),
        lambda: runtime.cancel_turn(ada, room),
        lambda: runtime.delete_agent(ada),
    ]
    for change in changes:
        await waits(seat, change())
    assert letta.prompts == []
    assert [one.name for one in await runtime.list_agents()] == ["Ada"]
    await runtime.close()
