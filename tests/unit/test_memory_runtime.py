"""The in-memory runtime keeps the promises of the protocol."""

import asyncio
from collections.abc import Generator, Mapping

import pytest
from tests.scripts import obey
from tests.waiting import Clock, settled, within

from letta_matrix.common.tools import ToolCall, ToolResult, ToolSpec
from letta_matrix.runtimes.faults import (
    AgentGone,
    RuntimeRefused,
    RuntimeUnavailable,
    TurnLost,
)
from letta_matrix.runtimes.memory import Answer, MemoryRuntime
from letta_matrix.runtimes.protocol import (
    AgentInfo,
    AgentRuntime,
    ApprovalRequested,
    Capabilities,
    Image,
    ImagesDropped,
    StopReason,
    TextDelta,
    TurnEvent,
    TurnFinished,
    TurnRequest,
    TurnStarted,
)
from letta_matrix.runtimes.speech import Speech

AGENT = "agent-00000001-0000"
OTHER = "agent-00000002-0000"


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
    assert typed.capabilities == Capabilities()
    await typed.close()


async def test_agents_come_and_go(runtime: MemoryRuntime) -> None:
    created = await runtime.create_agent("Ada", model="m", description="d")
    await runtime.rename_agent(created.agent_id, "Grace")
    names = [agent.name for agent in await runtime.list_agents()]
    assert names == ["Agent 1", "Agent 2", "Grace"]
    assert (await runtime.list_agents())[2] == AgentInfo(created.agent_id, "Grace", "d", "m")
    await runtime.delete_agent(created.agent_id)
    await runtime.delete_agent(created.agent_id)
    assert len(await runtime.list_agents()) == 2


async def test_models_can_be_switched(runtime: MemoryRuntime) -> None:
    chosen = (await runtime.list_models())[1]
    await runtime.set_model(AGENT, chosen)
    assert (await runtime.list_agents())[0].model == chosen
    with pytest.raises(RuntimeRefused, match="no model"):
        await runtime.set_model(AGENT, "nonsense")


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
    assert runtime.conversations == {first: "a", second: "b"}


async def test_without_conversations_an_agent_has_a_single_one() -> None:
    runtime = MemoryRuntime(capabilities=Capabilities(conversations=False))
    first = await runtime.create_conversation("a", "x")
    assert await runtime.create_conversation("a", "y") == first
    assert await runtime.create_conversation("b", "x") != first


async def test_a_turn_followed_again_asks_nobody_twice(runtime: MemoryRuntime) -> None:
    saved = Saved()
    first = await run(runtime, request(), saved)
    assert await run(runtime, request(), saved) == first
    assert len(runtime.asked) == 1


async def test_two_agents_with_the_same_message_are_both_asked_and_once(
    runtime: MemoryRuntime,
) -> None:
    both = [TurnRequest(agent, f"c-{agent}", "$1", agent) for agent in (AGENT, OTHER)]
    saved = [Saved(), Saved()]
    for _ in range(2):
        for asked, state in zip(both, saved, strict=True):
            events = await run(runtime, asked, state)
            assert TextDelta("0", f"echo: {asked.agent_id}") in events
    assert runtime.asked == both


async def test_a_message_that_another_agent_knows_is_lost_all_the_same(
    runtime: MemoryRuntime,
) -> None:
    saved = Saved()
    await run(runtime, request(), saved)
    with pytest.raises(TurnLost):
        await run(runtime, TurnRequest(OTHER, "c2", "$1", "hello"), saved)


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
        runtime.delete_agent(AGENT),
        runtime.list_models(),
        runtime.set_model(AGENT, "memory/small"),
        runtime.said_since(AGENT, None),
        runtime.cancel_turn(AGENT, "c1"),
        run(runtime, request()),
    ):
        with pytest.raises(RuntimeUnavailable):
            await call


async def test_an_unknown_agent_is_refused(runtime: MemoryRuntime) -> None:
    with pytest.raises(AgentGone, match="no agent"):
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


async def test_a_pause_ends_when_the_turn_is_cancelled(
    runtime: MemoryRuntime, clock: Clock
) -> None:
    clock.stop()
    turn = asyncio.create_task(run(runtime, request("slow 60")))
    await settled(turn)
    await runtime.cancel_turn(AGENT, "c1")
    assert (await turn)[-1] == TurnFinished(StopReason.CANCELLED)


def careful(asked: TurnRequest) -> Generator[TurnEvent | float, Answer | None, None]:
    """Asks for an approval, and says what the answer was."""
    answer = yield ApprovalRequested("a1", "Bash", {"command": asked.text})
    yield TextDelta("0", f"told {answer}")
    yield TurnFinished(StopReason.END_TURN)


async def test_an_approval_waits_for_its_answer() -> None:
    runtime, saved = MemoryRuntime(agents=1, script=careful), Saved()
    events = runtime.run_turn(request(), None, saved)
    assert [await anext(events), await anext(events)][1:] == [
        ApprovalRequested("a1", "Bash", {"command": "hello"})
    ]
    waiting = asyncio.ensure_future(anext(events))
    await settled(waiting)
    await runtime.answer_approval(request(), "a1", allow=False, message="no")
    assert await waiting == TextDelta("0", f"told {Answer(False, 'no')}")
    with pytest.raises(RuntimeRefused, match="no longer pending"):
        await runtime.answer_approval(request(), "a1", allow=True)
    assert runtime.answers == {"a1": Answer(False, "no")}
    await events.aclose()


async def test_an_approval_is_reported_again_until_it_is_answered() -> None:
    runtime, saved = MemoryRuntime(agents=1, script=careful), Saved()
    for _ in range(2):
        events = runtime.run_turn(request(), saved.state, saved)
        await anext(events)
        assert isinstance(await anext(events), ApprovalRequested)
        await events.aclose()
    await runtime.answer_approval(request(), "a1", allow=True)
    again = await run(runtime, request(), saved)
    assert not any(isinstance(event, ApprovalRequested) for event in again)
    assert TextDelta("0", f"told {Answer(True)}") in again


async def test_a_turn_cancelled_while_it_waits_for_an_approval_ends() -> None:
    runtime = MemoryRuntime(agents=1, script=careful)
    turn = asyncio.create_task(run(runtime, request()))
    await settled(turn)
    await runtime.cancel_turn(AGENT, "c1")
    assert (await within(turn))[-1] == TurnFinished(StopReason.CANCELLED)
    with pytest.raises(RuntimeRefused):
        await runtime.answer_approval(request(), "a1", allow=True)


async def test_what_is_said_between_turns_is_told_once(runtime: MemoryRuntime) -> None:
    first = runtime.say(AGENT, "before")
    start = await runtime.said_since(AGENT, None)
    assert start.speeches == ()
    seen = (await runtime.list_agents())[0].last_run
    second = runtime.say(AGENT, "good morning", "c1")
    assert (await runtime.list_agents())[0].last_run not in ("", seen)
    said = await runtime.said_since(AGENT, start.cursor)
    assert said.speeches == (Speech(second.message_id, "c1", "good morning"),)
    await run(runtime, request())
    assert (await runtime.said_since(AGENT, said.cursor)).speeches == ()
    assert (await runtime.said_since(AGENT, "")).speeches == (first, second)


async def test_offered_tools_can_be_called(runtime: MemoryRuntime) -> None:
    async def handle(call: ToolCall) -> ToolResult:
        return ToolResult(f"{call.name} {call.arguments['room']} {call.call_id}")

    runtime.offer_tools([ToolSpec("send", "", {})], handle)
    result = await runtime.call_tool(AGENT, "c1", "send", {"room": "!r"}, "call-1")
    assert result == ToolResult("send !r call-1")
    with pytest.raises(KeyError):
        await runtime.call_tool(AGENT, "c1", "unknown", {})


async def test_images_arrive_or_are_reported_dropped() -> None:
    image = Image("a.png", "image/png", b"png")
    seeing, blind = (
        MemoryRuntime(agents=1, capabilities=Capabilities(images=images))
        for images in (True, False)
    )
    asked = TurnRequest(AGENT, "c1", "$1", "look", (image,))
    assert not any(isinstance(event, ImagesDropped) for event in await run(seeing, asked))
    assert seeing.asked[0].images == (image,)
    assert sum(isinstance(event, ImagesDropped) for event in await run(blind, asked)) == 1
