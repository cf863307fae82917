"""Approvals, images, models and errors of a real App Server."""

import asyncio
import base64
import json
import os
import secrets
import sys
from collections.abc import Coroutine
from pathlib import Path

import pytest
from tests.integration.runtime_bench import Bench, Client, client_until, text_of
from tests.stub_model import MODEL_ID, StubModel
from tests.waiting import Clock, eventually, within

from letta_matrix.runtimes.app_server.following import QUIET
from letta_matrix.runtimes.faults import AgentGone, RuntimeRefused
from letta_matrix.runtimes.protocol import (
    ApprovalRequested,
    Image,
    ImagesDropped,
    StopReason,
    ToolReturned,
    TurnEvent,
    TurnFinished,
)

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
PROVIDER_ERRORS = {
    "401": "does not accept its API key",
    "429": "takes no more requests for now",
    "500": "the model provider answered HTTP 500: the stub model was told to fail",
}


async def test_bridges_killed_while_approvals_are_pending(bench: Bench, tmp_path: Path) -> None:
    other = await bench.runtime.create_conversation(bench.agent_id, "room !b")
    await bench.runtime.close()
    cases = [(bench.conversation_id, True), (other, False)]
    turns: list[Coroutine[None, None, list[TurnEvent]]] = []
    for talk, allow in cases:
        request = bench.request(f"tool:Bash:touch {tmp_path / talk}", talk)
        state = tmp_path / "state"
        await client_until(bench, request, state, b'"approval"')
        turns.append(bench.answered(request, json.loads(state.read_text()), allow=allow))
    await bench.restart()
    for (talk, allow), events in zip(cases, await asyncio.gather(*turns), strict=True):
        assert sum(isinstance(event, ApprovalRequested) for event in events) == 1
        assert [event.ok for event in events if isinstance(event, ToolReturned)] == [allow]
        assert (tmp_path / talk).exists() is allow


async def test_an_approval_answered_before_its_turn_is_followed_again(
    bench: Bench, tmp_path: Path
) -> None:
    request = bench.request(f"tool:Bash:touch {tmp_path / 'made'}")
    approval = await bench.asked(request)
    await bench.restart()
    await bench.runtime.answer_approval(request, approval.approval_id, allow=True)
    events = await bench.turn(request, bench.saved.state)
    assert [event.ok for event in events if isinstance(event, ToolReturned)] == [True]
    for gone in (approval.approval_id, "perm-nothing"):
        with pytest.raises(RuntimeRefused):
            await bench.runtime.answer_approval(request, gone, allow=True)


async def test_a_pending_approval_whose_frames_are_gone(bench: Bench, tmp_path: Path) -> None:
    bench.socket = tmp_path / "forgetful.sock"
    command = ("-m", "letta_matrix.runtimes.keeper", "--socket", str(bench.socket))
    keeper = await asyncio.create_subprocess_exec(sys.executable, *command, "--buffer", "10")
    try:
        await eventually(bench.socket.exists)
        await bench.restart()
        request = bench.request(f"tool:Bash:touch {tmp_path / 'made'}")
        await bench.asked(request)
        await bench.restart()
        events = await bench.answered(request, bench.saved.state)
    finally:
        await bench.runtime.close()
        keeper.terminate()
        await keeper.wait()
    assert sum(isinstance(event, ApprovalRequested) for event in events) == 1
    assert (tmp_path / "made").exists()
    assert text_of(events).startswith("tool said: ")
    assert isinstance(events[-1], TurnFinished)


async def test_an_approval_may_wait_long(bench: Bench, tmp_path: Path, clock: Clock) -> None:
    asked = asyncio.Event()
    request = bench.request(f"tool:Bash:touch {tmp_path / 'made'}")
    turn = asyncio.create_task(bench.turn_with(request, ApprovalRequested, asked.set))
    await eventually(asked.is_set)
    for _ in range(10):
        clock.advance(QUIET + 1)
        await bench.runtime.list_agents()
    assert not turn.done()
    await bench.cancel()
    assert isinstance((await turn)[-1], TurnFinished)


async def test_what_could_be_allowed_for_good_says_so(bench: Bench, tmp_path: Path) -> None:
    """It is not allowed so in the App Server, which would hold for all its agents."""
    text = f"tool:Bash:touch {tmp_path / 'made'}"
    for _ in range(2):
        events = await bench.answered(bench.request(text))
        (approval,) = [event for event in events if isinstance(event, ApprovalRequested)]
        assert approval.always


async def test_a_turn_behind_somebody_elses_approval_shows_it(
    bench: Bench, tmp_path: Path, clock: Clock
) -> None:
    async with Client(bench) as other:
        _, mark = await other.begin(f"tool:Bash:touch {tmp_path / 'theirs'}")
        await other.until(mark, lambda frame: frame["type"] == "control_request")
        turn = asyncio.create_task(bench.answered(bench.request("mine"), allow=False))
        await bench.silence(clock, lambda: bench.answers)
        events = await within(turn)
    assert text_of(events) == "echo: mine"
    assert sum(isinstance(event, ApprovalRequested) for event in events) == 1
    assert not (tmp_path / "theirs").exists()


async def test_images_that_no_model_gets_are_told(bench: Bench, stub_model: StubModel) -> None:
    word = secrets.token_hex(4)
    request = bench.request(f"look {word}", images=(Image("dot.png", "image/png", PNG),))
    events = await bench.turn(request)
    assert [type(event) for event in events].count(ImagesDropped) == 1
    assert [r.images for r in stub_model.requests if word in r.text] == [0]
    again = await bench.turn(request, bench.saved.state)
    assert [event for event in again if isinstance(event, ImagesDropped)]


async def test_images_reach_a_model_with_vision(bench: Bench, stub_model: StubModel) -> None:
    async with Client(bench) as other:
        fields = {"baseUrl": stub_model.url, "apiKey": "stub-key"}
        provider = {"target": "local", "provider_id": "llama-cpp", "fields": fields}
        assert (await other.ask("connect_provider", **provider))["success"]
        try:
            await other.ask("list_models", force=True)
            assert f"llama.cpp/{MODEL_ID}" in await bench.runtime.list_models()
            await bench.runtime.set_model(bench.agent_id, f"llama.cpp/{MODEL_ID}")
            images = (Image("a.png", "image/png", PNG), Image("b.png", "image/png", PNG))
            events = await bench.turn(bench.request("look", images=images))
            only = await bench.turn(bench.request("", images=images[:1]))
        finally:
            await other.ask("disconnect_provider", target="local", provider_id="llama-cpp")
    assert text_of(events) == "echo: look I see 2 image(s)"
    assert not [event for event in events if isinstance(event, ImagesDropped)]
    assert isinstance(only[-1], TurnFinished)


async def test_a_deleted_agent_is_gone(bench: Bench) -> None:
    assert await bench.say("one") == "echo: one"
    await bench.runtime.delete_agent(bench.agent_id)
    await bench.runtime.delete_agent(bench.agent_id)
    assert bench.agent_id not in {a.agent_id for a in await bench.runtime.list_agents()}
    for _ in range(2):
        with pytest.raises(AgentGone, match=f"Agent {bench.agent_id} not found"):
            await bench.turn(bench.request("two"))
    with pytest.raises(AgentGone):
        await bench.runtime.create_conversation(bench.agent_id, "room")
    with pytest.raises(AgentGone):
        await bench.runtime.said_since(bench.agent_id, None)


async def test_a_refusing_provider_is_one_line(bench: Bench) -> None:
    for code, expected in PROVIDER_ERRORS.items():
        events = await bench.turn(bench.request(f"error:{code}"))
        assert isinstance(events[-1], TurnFinished)
        assert events[-1].stop_reason is StopReason.ERROR
        assert expected in events[-1].error
        assert os.linesep not in events[-1].error
    assert await bench.say("next") == "echo: next"
