"""Turns that were left in their midst, by what an App Server reports of them; and one message for
several agents."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.fake_app_server import FakeAppServer, adapter_at
from tests.waiting import Clock, eventually, within

from letta_matrix.runtimes.app_server import AppServer
from letta_matrix.runtimes.faults import RuntimeUnavailable, TurnLost
from letta_matrix.runtimes.protocol import (
    ApprovalRequested,
    StopReason,
    TextDelta,
    TurnEvent,
    TurnFinished,
    TurnRequest,
    TurnState,
)

Json = dict[str, Any]
REQUEST = TurnRequest("a1", "c1", "$1", "hello")
OTHER = replace(REQUEST, agent_id="a2", conversation_id="c2")
SCOPE = {"agent_id": "a1", "conversation_id": "c1"}
EARLIER: TurnState = {"life": "an earlier keeper's", "generation": 0, "seq": 7}
STORED = [
    {"id": "m4", "message_type": "assistant_message", "content": "and so on"},
    {"id": "m3", "message_type": "tool_return_message"},
    {"id": "m2", "message_type": "tool_call_message"},
    {"id": "m1", "message_type": "user_message", "content": "hello", "otid": "$1"},
]
"""Newest first, as they are listed: a turn that has used a tool."""
STARTED = {"disposition": "started"}


def loop(status: str, active: list[str], **runs: list[str]) -> Json:
    state = {"status": status, "active_run_ids": active, "client_message_ids_by_run_id": runs}
    return {"type": "update_loop_status", "loop_status": state}


def finished(run: str, stop: str = "end_turn") -> Json:
    return {"type": "turn_finished", "run_id": run, "stop_reason": stop}


@pytest.fixture
async def upstream() -> AsyncGenerator[FakeAppServer]:
    async with FakeAppServer() as server:
        yield server


@pytest.fixture
async def runtime(tmp_path: Path, upstream: FakeAppServer) -> AsyncGenerator[AppServer]:
    async with adapter_at(upstream, tmp_path / "k") as adapter:
        await adapter.start()
        await eventually(lambda: vars(adapter)["_connection"].link.up)
        yield adapter


def reporting(upstream: FakeAppServer, *frames: Json) -> None:
    """Let the App Server report these frames once somebody subscribes to the conversation. What
    it is told to abort is cancelled."""
    answers: dict[str, Json] = {
        "abort_message": {"aborted": True},
        "conversation_messages_list": {"messages": STORED},
        "conversation_fork": {"conversation": {"id": "c2"}},
    }

    def respond(frame: Json) -> list[Json]:
        head = {"type": f"{frame['type']}_response", "request_id": frame["request_id"]}
        answer = {**head, "success": True, **answers.get(frame["type"], {}), "runtime": SCOPE}
        told = {"runtime_start": frames, "abort_message": [finished("r1", "cancelled")]}
        return [answer, *({**one, "runtime": SCOPE} for one in told.get(frame["type"], ()))]

    upstream.respond = respond


async def nothing(_: TurnState) -> None:
    pass


async def followed(runtime: AppServer) -> list[TurnEvent]:
    return [event async for event in runtime.run_turn(REQUEST, EARLIER, nothing)]


@pytest.mark.parametrize(
    ("frames", "stop"),
    [
        (
            [
                loop("PROCESSING_API_RESPONSE", ["r1"], r1=["$1"]),
                finished("r1"),
            ],
            StopReason.END_TURN,
        ),
        (
            [
                loop("PROCESSING_API_RESPONSE", [], r1=["$1"]),
                loop("PROCESSING_API_RESPONSE", ["r2"], r1=["$1"], r2=["$1"]),
                finished("r2"),
            ],
            StopReason.END_TURN,
        ),
        ([loop("WAITING_ON_INPUT", [], r1=["$1"]), finished("r1", "error")], StopReason.ERROR),
    ],
    ids=["in a run", "between two runs", "about to end"],
)
async def test_a_turn_that_went_on_meanwhile_is_joined(
    runtime: AppServer, upstream: FakeAppServer, clock: Clock, frames: list[Json], stop: StopReason
) -> None:
    clock.stop()
    reporting(upstream, *frames)
    events = await within(followed(runtime))
    assert [event.text for event in events if isinstance(event, TextDelta)] == ["and so on"]
    (end,) = [event for event in events if isinstance(event, TurnFinished)]
    assert end.stop_reason is stop
    assert events[-1] is end


async def test_a_turn_that_is_cut_off_just_now_is_lost(
    runtime: AppServer, upstream: FakeAppServer, clock: Clock
) -> None:
    """The App Server cancels what it does for clients that are all gone, and takes its time."""
    clock.stop()
    cut_off = finished("r1", "cancelled")
    reporting(upstream, loop("PROCESSING_API_RESPONSE", ["r1"], r1=["$1"]), cut_off)
    with pytest.raises(TurnLost, match="cut off") as lost:
        await within(followed(runtime))
    assert lost.value.fresh_conversation == "c2"


async def test_a_turn_that_was_joined_can_be_stopped(
    runtime: AppServer, upstream: FakeAppServer, clock: Clock
) -> None:
    clock.stop()
    reporting(upstream, loop("PROCESSING_API_RESPONSE", ["r1"], r1=["$1"]))
    following = asyncio.create_task(followed(runtime))
    await eventually(lambda: any("runtime_start" in text for text in upstream.received))
    await within(runtime.cancel_turn("a1", "c1"))
    end = (await within(following))[-1]
    assert isinstance(end, TurnFinished)
    assert end.stop_reason is StopReason.CANCELLED


async def test_a_turn_that_a_new_app_server_takes_up_uses_no_tool_again(
    runtime: AppServer, upstream: FakeAppServer, clock: Clock
) -> None:
    clock.stop()
    queue = {"type": "update_queue", "queue": [{"client_message_id": "$1"}], "removed": []}
    taken = {"type": "update_queue", "queue": [], "removed": [{"client_message_id": "$1"}]}
    reporting(upstream, loop("WAITING_ON_INPUT", []), queue, taken)
    with pytest.raises(TurnLost, match="restarted while a tool ran") as lost:
        await within(followed(runtime))
    assert lost.value.tools_started
    assert lost.value.fresh_conversation == "c2"
    asked = [json.loads(text)["type"] for text in upstream.received]
    assert asked.index("abort_message") < asked.index("conversation_fork")


def text_of(events: list[TurnEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def said(text: str) -> Json:
    message = {"message_type": "assistant_message", "id": "m", "content": text}
    return {"type": "stream_delta", "delta": {**message, "run_id": "r1", "seq_id": 1}}


def place_of(frame: Json) -> Json:
    """The conversation that a request is for."""
    return frame.get("runtime") or {key: frame[key] for key in SCOPE}


def answer_to(frame: Json, *more: Json, **fields: object) -> list[Json]:
    """An answer, and what is told after it."""
    kind = "input_accepted" if frame["type"] == "input" else f"{frame['type']}_response"
    head = {"type": kind, "request_id": frame["request_id"], "success": True, "accepted": True}
    return [{**one, "runtime": place_of(frame)} for one in ({**head, **fields}, *more)]


async def asked(events: AsyncGenerator[TurnEvent]) -> ApprovalRequested:
    async for event in events:
        if isinstance(event, ApprovalRequested):
            return event
    raise AssertionError("nothing was asked")


async def test_agents_are_asked_the_same_at_once(
    runtime: AppServer, upstream: FakeAppServer, clock: Clock
) -> None:
    inputs: list[Json] = []

    def respond(frame: Json) -> list[Json]:
        if frame["type"] != "input":
            return answer_to(frame)
        inputs.append(frame)
        if len(inputs) < 2:
            return []
        ends = [
            answer_to(one, said(f"I am {place_of(one)['agent_id']}"), finished("r1"), **STARTED)
            for one in inputs
        ]
        return [one for end in ends for one in end]

    upstream.respond = respond
    clock.stop()

    async def told(request: TurnRequest) -> str:
        return text_of([event async for event in runtime.run_turn(request, None, nothing)])

    assert await within(asyncio.gather(told(REQUEST), told(OTHER))) == ["I am a1", "I am a2"]


async def test_a_question_is_asked_again_though_another_agents_was_answered(
    runtime: AppServer, upstream: FakeAppServer
) -> None:
    restarted = False

    def respond(frame: Json) -> list[Json]:
        run = f"run of {place_of(frame)['conversation_id']}"
        request: Json = {"subtype": "can_use_tool", "tool_name": "Bash", "input": {}}
        question: Json = {"type": "control_request", "request_id": run, "request": request}
        asking = [loop("WAITING_ON_APPROVAL", [run], **{run: ["$1"]}), question]
        if frame["type"] == "conversation_messages_list":
            return answer_to(frame, messages=STORED[2:])
        if frame["type"] == "runtime_start":
            return answer_to(frame, *(asking if restarted else ()))
        if frame["type"] != "input":
            return answer_to(frame, conversation={"id": "c3"})
        is_prompt = frame["payload"]["kind"] == "create_message"
        return answer_to(frame, *(asking if is_prompt else [finished(run)]), **STARTED)

    upstream.respond = respond
    states: list[TurnState] = []

    async def save(state: TurnState) -> None:
        states.append(state)

    async with aclosing(runtime.run_turn(REQUEST, None, save)) as waiting:
        question = await within(asked(waiting))
        async for event in runtime.run_turn(OTHER, None, nothing):
            if isinstance(event, ApprovalRequested):
                await runtime.answer_approval(OTHER, event.approval_id, allow=True)
        await runtime.finish_turn(OTHER)
        restarted = True
        await upstream.drop()
        with pytest.raises(RuntimeUnavailable):
            await within(anext(waiting))
    await eventually(lambda: vars(runtime)["_connection"].link.up)
    async with aclosing(runtime.run_turn(REQUEST, states[0], nothing)) as again:
        assert await within(asked(again)) == question
