"""The in-memory runtime keeps the promises of the protocol."""

from collections.abc import Mapping

import pytest
from tests.scripts import obey

from letta_matrix.runtimes.memory import MemoryRuntime
from letta_matrix.runtimes.protocol import (
    AgentInfo,
    AgentRuntime,
    RuntimeRefused,
    RuntimeUnavailable,
    StopReason,
    TextDelta,
    TurnEvent,
    TurnFinished,
    TurnLost,
    TurnRequest,
    TurnStarted,
)

AGENT = "agent-00000001-0000"


def request(text: str = "hello", message_id: str = "$1") -> TurnRequest:
    return TurnRequest(AGENT, "c1", message_id, text)


class Saved:
    """The state a turn saved, and how often."""

    def __init__(self) -> None:
        self.state: Mapping[str, object] | None = None

    async def __call__(self, state: Mapping[str, object]) -> None:
        self.state = state


async def run(
    runtime: MemoryRuntime, asked: TurnRequest, saved: Saved | None = None
) -> list[TurnEvent]:
    saved = saved or Saved()
    return [event async for event in runtime.run_turn(asked, saved.state, saved)]


@pytest.fixture
def runtime() -> MemoryRuntime:
    return MemoryRuntime(agents=2, script=obey)


async def test_it_is_a_runtime(runtime: MemoryRuntime) -> None:
    typed: AgentRuntime = runtime
    await typed.start()
    assert typed.name == "memory"
    assert not typed.capabilities.approvals
    await typed.close()


async def test_agents_come_and_go(runtime: MemoryRuntime) -> None:
    created = await runtime.create_agent("Ada", model="m", description="d")
    await runtime.rename_agent(created.agent_id, "Grace")
    names = [agent.name for agent in await runtime.list_agents()]
    assert names == ["Agent 1", "Agent 2", "Grace"]
    assert (await runtime.list_agents())[2] == AgentInfo(created.agent_id, "Grace", "d", "m")
    runtime.remove(created.agent_id)
    assert len(await runtime.list_agents()) == 2


async def test_an_echo(runtime: MemoryRuntime) -> None:
    assert await run(runtime, request()) == [
        TurnStarted("run-$1"),
        TextDelta("0", "echo: hello"),
        TurnFinished(StopReason.END_TURN),
    ]


async def test_conversations_belong_to_agents(runtime: MemoryRuntime) -> None:
    first = await runtime.create_conversation("a", "x")
    second = await runtime.create_conversation("b", "x")
    assert first != second
    assert await runtime.list_conversations("a") == [first]


async def test_a_turn_followed_again_asks_nobody_twice(runtime: MemoryRuntime) -> None:
    saved = Saved()
    first = await run(runtime, request(), saved)
    assert await run(runtime, request(), saved) == first
    assert len(runtime.asked) == 1


async def test_a_turn_left_in_the_middle_can_be_followed_again(runtime: MemoryRuntime) -> None:
    saved = Saved()
    events = runtime.run_turn(request("stream 3 0"), None, saved)
    await anext(events)
    await anext(events)
    await events.aclose()
    again = await run(runtime, request("stream 3 0"), saved)
    assert sum(isinstance(event, TextDelta) for event in again) == 3


async def test_another_process_has_lost_it(runtime: MemoryRuntime) -> None:
    saved = Saved()
    await run(runtime, request(), saved)
    with pytest.raises(TurnLost) as caught:
        await run(MemoryRuntime(agents=1), request(), saved)
    assert not caught.value.tools_started


async def test_switched_off_it_is_unavailable(runtime: MemoryRuntime) -> None:
    runtime.available = False
    for call in (
        runtime.list_agents(),
        runtime.create_agent("x"),
        runtime.rename_agent(AGENT, "x"),
        runtime.create_conversation(AGENT, "x"),
        runtime.list_conversations(AGENT),
        run(runtime, request()),
    ):
        with pytest.raises(RuntimeUnavailable):
            await call


async def test_an_unknown_agent_is_refused(runtime: MemoryRuntime) -> None:
    with pytest.raises(RuntimeRefused, match="no agent"):
        await run(runtime, TurnRequest("nobody", "c", "$1", "x"))
    with pytest.raises(RuntimeRefused):
        await runtime.rename_agent("nobody", "x")
    with pytest.raises(RuntimeRefused):
        await runtime.answer_approval(request(), "a", allow=True)


async def test_a_turn_can_be_cancelled(runtime: MemoryRuntime) -> None:
    events = runtime.run_turn(request("stream 50 0"), None, Saved())
    await anext(events)
    await runtime.cancel_turn(AGENT, "c1")
    assert [event async for event in events] == [TurnFinished(StopReason.CANCELLED)]
    assert (await run(runtime, request("next", "$2")))[-1] == TurnFinished(StopReason.END_TURN)


async def test_cancelling_nothing_harms_no_later_turn(runtime: MemoryRuntime) -> None:
    await run(runtime, request())
    await runtime.cancel_turn(AGENT, "c1")
    assert (await run(runtime, request("next", "$2")))[-1] == TurnFinished(StopReason.END_TURN)
