"""Approvals, images, models and errors of a real App Server."""

import asyncio
import base64
import json
import os
import secrets
import sys
import time
from pathlib import Path

import pytest
from tests.integration.runtime_bench import (
    MODEL,
    Bench,
    Client,
    client_until,
    text_of,
)
from tests.stub_model import MODEL_ID, StubModel
from tests.waiting import eventually

from letta_matrix.runtimes.protocol import (
    AgentGone,
    ApprovalRequested,
    Image,
    ImagesDropped,
    RuntimeRefused,
    StopReason,
    ToolReturned,
    TurnEvent,
    TurnFinished,
    TurnRequest,
    TurnState,
)

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


async def asked(bench: Bench, request: TurnRequest) -> ApprovalRequested:
    """Run a turn up to its approval, and stop following it."""
    events = bench.runtime.run_turn(request, None, bench.saved.save)
    async for event in events:
        if isinstance(event, ApprovalRequested):
            await events.aclose()
            return event
    raise AssertionError("nothing was asked")


async def answered(
    bench: Bench,
    request: TurnRequest,
    state: TurnState | None,
    *,
    allow: bool,
    always: bool = False,
) -> list[TurnEvent]:
    """Follow a turn, answering what it asks for."""
    events: list[TurnEvent] = []
    async for event in bench.runtime.run_turn(request, state, bench.saved.save):
        events.append(event)
        if isinstance(event, ApprovalRequested):
            await bench.runtime.answer_approval(
                request, event.approval_id, allow=allow, always=always
            )
    return events


@pytest.mark.parametrize("allow", [True, False])
async def test_a_bridge_killed_while_an_approval_is_pending(
    bench: Bench, tmp_path: Path, allow: bool
) -> None:
    await bench.runtime.close()
    made = tmp_path / "made"
    request, state = bench.request(f"tool:Bash:touch {made}"), tmp_path / "state"
    await client_until(bench, request, state, b'"approval"')
    await asyncio.sleep(0.5)
    await bench.restart()
    events = await answered(bench, request, json.loads(state.read_text()), allow=allow)
    assert sum(isinstance(event, ApprovalRequested) for event in events) == 1
    assert [event.ok for event in events if isinstance(event, ToolReturned)] == [allow]
    assert made.exists() is allow


async def test_an_approval_answered_before_its_turn_is_followed_again(
    bench: Bench, tmp_path: Path
) -> None:
    request = bench.request(f"tool:Bash:touch {tmp_path / 'made'}")
    approval = await asked(bench, request)
    await bench.restart()
    await bench.runtime.answer_approval(request, approval.approval_id, allow=True)
    events = await bench.turn(request, bench.saved.state)
    assert [event.ok for event in events if isinstance(event, ToolReturned)] == [True]
    with pytest.raises(RuntimeRefused):
        await bench.runtime.answer_approval(request, approval.approval_id, allow=True)


async def test_several_approvals_wait_at_once(bench: Bench, tmp_path: Path) -> None:
    other = await bench.runtime.create_conversation(bench.agent_id, "room !b")
    requests = [
        bench.request(f"tool:Bash:touch {tmp_path / talk}", talk)
        for talk in (bench.conversation_id, other)
    ]
    states: list[TurnState | None] = []
    for request in requests:
        await asked(bench, request)
        states.append(bench.saved.state)
    await bench.restart()
    turns = [answered(bench, r, s, allow=True) for r, s in zip(requests, states, strict=True)]
    await asyncio.gather(*turns)
    assert (tmp_path / other).exists()
    assert (tmp_path / bench.conversation_id).exists()


async def test_a_pending_approval_whose_frames_are_gone(bench: Bench, tmp_path: Path) -> None:
    bench.socket = tmp_path / "forgetful.sock"
    command = ("-m", "letta_matrix.runtimes.keeper", "--socket", str(bench.socket))
    keeper = await asyncio.create_subprocess_exec(sys.executable, *command, "--buffer", "10")
    try:
        await eventually(bench.socket.exists)
        await bench.restart()
        request = bench.request(f"tool:Bash:touch {tmp_path / 'made'}")
        await asked(bench, request)
        await bench.restart()
        events = await answered(bench, request, bench.saved.state, allow=True)
    finally:
        await bench.runtime.close()
        keeper.terminate()
        await keeper.wait()
    assert sum(isinstance(event, ApprovalRequested) for event in events) == 1
    assert (tmp_path / "made").exists()
    assert text_of(events).startswith("tool said: ")
    assert isinstance(events[-1], TurnFinished)


async def test_an_approval_may_wait_long(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("letta_matrix.runtimes.app_server.following.QUIET", 0.2)
    request = bench.request(f"tool:Bash:touch {tmp_path / 'made'}")
    turn = asyncio.create_task(bench.turn(request))
    await asyncio.sleep(2.5)
    assert not turn.done()
    await bench.runtime.cancel_turn(bench.agent_id, bench.conversation_id)
    assert isinstance((await turn)[-1], TurnFinished)


async def test_an_approval_for_good(bench: Bench, tmp_path: Path) -> None:
    text = f"tool:Bash:touch {tmp_path / 'made'}"
    approval = await asked(bench, bench.request(text))
    assert approval.always
    await bench.runtime.cancel_turn(bench.agent_id, bench.conversation_id)
    request = bench.request(text)
    await answered(bench, request, None, allow=True, always=True)
    events = await bench.turn(bench.request(text))
    assert not [event for event in events if isinstance(event, ApprovalRequested)]
    assert [event.ok for event in events if isinstance(event, ToolReturned)] == [True]


async def test_cancelling_while_an_approval_is_pending(bench: Bench, tmp_path: Path) -> None:
    turn = asyncio.create_task(bench.turn(bench.request(f"tool:Bash:touch {tmp_path / 'x'}")))
    await asyncio.sleep(1.5)
    began = time.monotonic()
    await bench.runtime.cancel_turn(bench.agent_id, bench.conversation_id)
    events = await turn
    assert time.monotonic() - began < 1
    assert isinstance(events[-1], TurnFinished)
    assert events[-1].stop_reason is StopReason.CANCELLED
    assert await bench.say("next") == "echo: next"


async def test_a_turn_behind_somebody_elses_approval_shows_it(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("letta_matrix.runtimes.app_server.following.QUIET", 0.5)
    async with Client(bench) as other:
        _, mark = await other.begin(f"tool:Bash:touch {tmp_path / 'theirs'}")
        await other.until(mark, lambda frame: frame["type"] == "control_request")
        request = bench.request("mine")
        events = await asyncio.wait_for(answered(bench, request, None, allow=False), 20)
    assert text_of(events) == "echo: mine"
    assert sum(isinstance(event, ApprovalRequested) for event in events) == 1
    assert not (tmp_path / "theirs").exists()


async def test_what_was_said_before_a_cancel_is_kept(bench: Bench) -> None:
    turn = asyncio.create_task(bench.turn(bench.request("slow:60")))
    await asyncio.sleep(2)
    await bench.runtime.cancel_turn(bench.agent_id, bench.conversation_id)
    assert text_of(await turn).startswith("word1 word2 ")


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


async def test_models_are_listed_and_set(bench: Bench) -> None:
    assert MODEL in await bench.runtime.list_models()
    await bench.runtime.set_model(bench.agent_id, MODEL)
    with pytest.raises(RuntimeRefused, match="no model made/up"):
        await bench.runtime.set_model(bench.agent_id, "made/up")
    assert await bench.say("still here") == "echo: still here"


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


@pytest.mark.parametrize(
    ("code", "expected"),
    [("401", "does not accept its API key"), ("429", "takes no more requests for now")],
)
async def test_a_refusing_provider_is_one_line(bench: Bench, code: str, expected: str) -> None:
    events = await bench.turn(bench.request(f"error:{code}"))
    assert isinstance(events[-1], TurnFinished)
    assert expected in events[-1].error
    assert os.linesep not in events[-1].error
