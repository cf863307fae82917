"""Approvals on a Letta API: durable through crashes, and nothing runs without one."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest
from tests.unit.letta_api_bridge import Bridge, end_of, text_of, with_agent
from tests.waiting import Clock

from letta_matrix.runtimes.faults import RuntimeRefused, RuntimeUnavailable
from letta_matrix.runtimes.protocol import (
    ApprovalRequested,
    StopReason,
    ToolReturned,
    ToolStarted,
    TurnEvent,
    TurnRequest,
)

ASK = "tool:Bash:echo hi"


@pytest.fixture
async def bridge() -> AsyncGenerator[Bridge]:
    async with with_agent() as made:
        yield made


async def until_asked(bridge: Bridge, request: TurnRequest) -> list[ApprovalRequested]:
    """Follow until an approval is asked for, and stop following."""
    async with aclosing(bridge.follow(request)) as events:
        async for event in events:
            if isinstance(event, ApprovalRequested):
                return [event]
    return []


async def answering(
    bridge: Bridge, request: TurnRequest, *, allow: bool, message: str = ""
) -> list[TurnEvent]:
    events: list[TurnEvent] = []
    async for event in bridge.follow(request):
        events.append(event)
        if isinstance(event, ApprovalRequested):
            await bridge.runtime.answer_approval(
                request, event.approval_id, allow=allow, message=message
            )
    return events


async def test_an_allowed_tool_runs_and_the_turn_goes_on(bridge: Bridge) -> None:
    events = await answering(bridge, bridge.request(ASK), allow=True)
    asked = next(event for event in events if isinstance(event, ApprovalRequested))
    assert (asked.tool, dict(asked.arguments), asked.always) == (
        "Bash",
        {"command": "echo hi"},
        False,
    )
    kinds = [type(event) for event in events]
    assert kinds.index(ApprovalRequested) < kinds.index(ToolStarted) < kinds.index(ToolReturned)
    assert text_of(events) == "tool said: hi"
    assert end_of(events).stop_reason is StopReason.END_TURN
    assert bridge.server.bodies[1]["messages"] == [
        {
            "type": "approval",
            "otid": f"$one/{bridge.agent_id}:1",
            "approvals": [{"type": "approval", "tool_call_id": asked.approval_id, "approve": True}],
        }
    ]


async def test_a_denied_tool_does_not_run_and_the_agent_is_told_why(bridge: Bridge) -> None:
    events = await answering(bridge, bridge.request(ASK), allow=False, message="too risky")
    assert [event.ok for event in events if isinstance(event, ToolReturned)] == [False]
    assert "User reason: too risky" in text_of(events)


async def test_a_pending_approval_is_asked_for_again_after_a_crash(bridge: Bridge) -> None:
    request = bridge.request(ASK)
    before = await until_asked(bridge, request)
    await bridge.crash()
    with pytest.raises(RuntimeUnavailable):
        await bridge.runtime.answer_approval(request, before[0].approval_id, allow=True)
    events = await answering(bridge, request, allow=True)
    assert [event for event in events if isinstance(event, ApprovalRequested)] == before
    assert text_of(events) == "tool said: hi"
    assert bridge.server.prompts == [ASK]


async def test_an_answer_given_before_a_crash_is_not_asked_for_again(bridge: Bridge) -> None:
    request = bridge.request(ASK)
    events = bridge.follow(request)
    async for event in events:
        if isinstance(event, ApprovalRequested):
            await bridge.runtime.answer_approval(request, event.approval_id, allow=True)
            break
    await events.aclose()
    assert len(bridge.server.runs) == 1, "the answer was taken, and not sent yet"
    await bridge.crash()
    again = await bridge.run(request)
    assert not any(isinstance(event, ApprovalRequested) for event in again)
    assert text_of(again) == "tool said: hi"


@pytest.mark.parametrize("otid", ["known", "forgotten"])
async def test_an_answer_lost_on_its_way_counts_once(bridge: Bridge, otid: str) -> None:
    """It is sent again, or found in the history where it would be taken twice."""
    request = bridge.request(ASK)
    asked = await until_asked(bridge, request)
    rest = await bridge.reach(request, ApprovalRequested)
    bridge.server.cut_after = 0
    await bridge.runtime.answer_approval(request, asked[0].approval_id, allow=True)
    with pytest.raises(RuntimeUnavailable):
        await rest
    assert len(bridge.server.runs) == 2
    if otid == "forgotten":
        bridge.server.forget_otids()
    await bridge.crash()
    again = await bridge.run(request)
    assert text_of(again) == "tool said: hi"
    assert len(bridge.server.runs) == 2


async def test_calls_that_wait_together_are_answered_together(bridge: Bridge) -> None:
    request = bridge.request("tool:Bash:echo one\ntool:Bash:echo two")
    asked: list[ApprovalRequested] = []
    async with aclosing(bridge.follow(request)) as events:
        async for event in events:
            if isinstance(event, ApprovalRequested):
                asked.append(event)
                await bridge.runtime.answer_approval(request, event.approval_id, allow=True)
                break
    await bridge.crash()
    events = await answering(bridge, request, allow=False)
    later = [event for event in events if isinstance(event, ApprovalRequested)]
    assert [event.arguments["command"] for event in asked + later] == ["echo one", "echo two"]
    assert [event.ok for event in events if isinstance(event, ToolReturned)] == [True, False]


async def test_an_approval_is_answered_once(bridge: Bridge) -> None:
    request = bridge.request(ASK)
    call_id = ""
    async for event in bridge.follow(request):
        if isinstance(event, ApprovalRequested):
            call_id = event.approval_id
            with pytest.raises(RuntimeUnavailable):
                await bridge.runtime.answer_approval(request, "call-other", allow=True)
            await bridge.runtime.answer_approval(request, call_id, allow=False)
            with pytest.raises(RuntimeRefused, match="answered"):
                await bridge.runtime.answer_approval(request, call_id, allow=True)
    with pytest.raises(RuntimeRefused, match="ended"):
        await bridge.runtime.answer_approval(request, call_id, allow=True)


async def test_an_answer_that_cannot_be_saved_is_not_taken(bridge: Bridge) -> None:
    request = bridge.request(ASK)
    full = False

    async def save(state: object) -> None:
        if full:
            raise OSError("the disk is full")

    async for event in bridge.runtime.run_turn(request, None, save):
        if isinstance(event, ApprovalRequested):
            full = True
            with pytest.raises(OSError, match="disk"):
                await bridge.runtime.answer_approval(request, event.approval_id, allow=True)
            full = False
            await bridge.runtime.answer_approval(request, event.approval_id, allow=False)
        if isinstance(event, ToolReturned):
            assert not event.ok


async def test_cancelling_denies_what_waits_and_frees_the_conversation(
    bridge: Bridge, clock: Clock
) -> None:
    clock.stop()
    request = bridge.request(ASK)
    events: list[TurnEvent] = []
    async for event in bridge.follow(request):
        events.append(event)
        if isinstance(event, ApprovalRequested):
            await bridge.runtime.cancel_turn(bridge.agent_id, bridge.conversation_id)
    assert end_of(events).stop_reason is StopReason.CANCELLED
    assert not any(event.ok for event in events if isinstance(event, ToolReturned))
    assert text_of(await bridge.run(bridge.request("hello", "$two"))) == "echo: hello"


async def test_an_approval_outlives_the_stream_of_its_run(bridge: Bridge) -> None:
    request = bridge.request(ASK)
    asked = await until_asked(bridge, request)
    await bridge.crash()
    bridge.server.fail(r"POST /v1/runs/.*/stream", 410, times=9)
    events = await answering(bridge, request, allow=True)
    assert [event for event in events if isinstance(event, ApprovalRequested)] == asked
    assert text_of(events) == "tool said: hi"


async def test_an_approval_decided_elsewhere_is_told(bridge: Bridge) -> None:
    request = bridge.request(ASK)
    with pytest.raises(RuntimeRefused, match="No tool call is currently awaiting approval"):
        await decided_elsewhere(bridge, request)


async def decided_elsewhere(bridge: Bridge, request: TurnRequest) -> None:
    async for event in bridge.follow(request):
        if isinstance(event, ApprovalRequested):
            bridge.server.conversations[bridge.conversation_id].pending = []
            await bridge.runtime.answer_approval(request, event.approval_id, allow=True)


async def test_what_follows_an_approval_is_no_speech_after_a_restart(bridge: Bridge) -> None:
    cursor = (await bridge.runtime.said_since(bridge.agent_id, None)).cursor
    await answering(bridge, bridge.request(ASK), allow=True)
    await bridge.crash()
    assert (await bridge.runtime.said_since(bridge.agent_id, cursor)).speeches == []
