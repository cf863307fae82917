"""Approvals on a Letta API that nobody will answer any more: denied, never given."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest
from tests.unit.letta_api_bridge import Bridge, end_of, text_of, with_agent
from tests.waiting import Clock

from letta_matrix.runtimes.faults import RuntimeBusy, RuntimeRefused
from letta_matrix.runtimes.letta_api.history import waiting_calls
from letta_matrix.runtimes.protocol import (
    ApprovalRequested,
    StopReason,
    ToolReturned,
    TurnEvent,
    TurnState,
)

ASK = "tool:Bash:echo hi"


@pytest.fixture
async def bridge() -> AsyncGenerator[Bridge]:
    async with with_agent() as made:
        yield made


async def orphaned(bridge: Bridge, text: str = ASK) -> None:
    """Leave approvals that wait, and nobody who follows their turn."""
    async with aclosing(bridge.follow(bridge.request(text))) as events:
        async for event in events:
            if isinstance(event, ApprovalRequested):
                break
    await bridge.crash()


def waits(bridge: Bridge) -> bool:
    return bool(bridge.server.conversations[bridge.conversation_id].pending)


def denials(bridge: Bridge) -> list[bool]:
    """What was answered, over all calls."""
    prompts = [body["messages"][0] for body in bridge.server.bodies]
    given = [item for prompt in prompts for item in prompt.get("approvals", [])]
    return [not item["approve"] for item in given]


@pytest.mark.parametrize("text", [ASK, f"{ASK}\n{ASK} two", f"{ASK}\ntool:look_up:1"])
async def test_cancelling_a_turn_that_nobody_follows_frees_its_conversation(
    bridge: Bridge, clock: Clock, text: str
) -> None:
    await orphaned(bridge, text)
    clock.stop()
    await bridge.runtime.cancel_turn(bridge.agent_id, bridge.conversation_id)
    assert not waits(bridge)
    assert all(denials(bridge))
    assert text_of(await bridge.run(bridge.request("hello", "$two"))) == "echo: hello"


async def test_what_the_agent_makes_of_such_a_denial_is_stopped(bridge: Bridge) -> None:
    await orphaned(bridge)
    before = len(bridge.server.lines(r"POST /v1/conversations/.*/cancel"))
    await bridge.runtime.cancel_turn(bridge.agent_id, bridge.conversation_id)
    assert len(bridge.server.lines(r"POST /v1/conversations/.*/cancel")) == before + 2


async def test_a_message_behind_an_approval_of_nobody_is_answered(bridge: Bridge) -> None:
    await orphaned(bridge)
    request = bridge.request("hello", "$two")
    with pytest.raises(RuntimeBusy):
        await bridge.run(request)
    assert text_of(await bridge.run(request)) == "echo: hello"
    assert denials(bridge) == [True]
    assert bridge.server.count("hello") == 1


async def test_a_message_refused_in_its_stream_ends_with_what_to_do(bridge: Bridge) -> None:
    bridge.server.refuses_in_stream = True
    await orphaned(bridge)
    end = end_of(await bridge.run(bridge.request("hello", "$two")))
    assert end.stop_reason is StopReason.ERROR
    assert "send the message again" in end.error
    assert denials(bridge) == [True]
    assert text_of(await bridge.run(bridge.request("hello", "$three"))) == "echo: hello"


async def test_an_approval_that_somebody_follows_is_not_denied_by_a_message(
    bridge: Bridge,
) -> None:
    request = bridge.request(ASK)
    events: list[TurnEvent] = []
    async for event in bridge.follow(request):
        events.append(event)
        if isinstance(event, ApprovalRequested):
            with pytest.raises(RuntimeBusy):
                await bridge.run(bridge.request("hello", "$two"))
            await bridge.runtime.answer_approval(request, event.approval_id, allow=True)
    assert text_of(events) == "tool said: hi"


async def test_an_approval_that_cannot_be_denied_is_told(bridge: Bridge) -> None:
    await orphaned(bridge)
    conversation = bridge.server.conversations[bridge.conversation_id]
    conversation.messages.clear()
    with pytest.raises(RuntimeRefused, match="begin a new conversation"):
        await bridge.run(bridge.request("hello", "$two"))


async def test_an_approval_after_a_cancel_does_not_count(bridge: Bridge) -> None:
    request = bridge.request(ASK)
    saving, saved = asyncio.Event(), asyncio.Event()

    async def save(state: TurnState) -> None:
        if state["cancelled"]:
            saving.set()
            await saved.wait()

    events: list[TurnEvent] = []
    cancelling: list[asyncio.Task[None]] = []
    async for event in bridge.runtime.run_turn(request, None, save):
        events.append(event)
        if isinstance(event, ApprovalRequested):
            cancel = bridge.runtime.cancel_turn(bridge.agent_id, bridge.conversation_id)
            cancelling.append(asyncio.create_task(cancel))
            await saving.wait()
            with pytest.raises(RuntimeRefused, match="cancelled"):
                await bridge.runtime.answer_approval(request, event.approval_id, allow=True)
            saved.set()
    await asyncio.gather(*cancelling)
    assert end_of(events).stop_reason is StopReason.CANCELLED
    assert denials(bridge) == [True]
    assert not any(event.ok for event in events if isinstance(event, ToolReturned))


async def test_a_cancel_overtakes_an_approval_that_is_not_saved_yet(bridge: Bridge) -> None:
    request = bridge.request(ASK)
    saving, saved = asyncio.Event(), asyncio.Event()

    async def save(state: TurnState) -> None:
        if state["tools"] and not state["cancelled"]:
            saving.set()
            await saved.wait()

    answers: list[asyncio.Task[None]] = []
    async for event in bridge.runtime.run_turn(request, None, save):
        if isinstance(event, ApprovalRequested):
            answer = bridge.runtime.answer_approval(request, event.approval_id, allow=True)
            answers.append(asyncio.create_task(answer))
            await saving.wait()
            await bridge.runtime.cancel_turn(bridge.agent_id, bridge.conversation_id)
            saved.set()
    with pytest.raises(RuntimeRefused, match="cancelled"):
        await answers[0]
    assert denials(bridge) == [True]


async def test_of_two_answers_at_once_the_first_counts(bridge: Bridge) -> None:
    request = bridge.request(ASK)
    async for event in bridge.follow(request):
        if isinstance(event, ApprovalRequested):
            both = [
                bridge.runtime.answer_approval(request, event.approval_id, allow=allow)
                for allow in (False, True)
            ]
            told = await asyncio.gather(*both, return_exceptions=True)
            assert [type(one) for one in told] == [type(None), RuntimeRefused]
    assert denials(bridge) == [True]


def test_only_calls_of_the_last_step_wait() -> None:
    def asks(call_id: str) -> dict[str, object]:
        return {"message_type": "approval_request_message", "tool_call": {"tool_call_id": call_id}}

    said: dict[str, object] = {"message_type": "assistant_message"}
    answered: dict[str, object] = {"message_type": "approval_response_message"}
    assert waiting_calls([asks("two"), asks("one"), said, asks("old")]) == ["one", "two"]
    assert waiting_calls([answered, asks("old")]) == []
    assert waiting_calls([{}, {"message_type": "user_message"}, asks("old")]) == []
