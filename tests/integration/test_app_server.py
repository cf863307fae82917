"""The App Server adapter and its keeper against a real App Server that goes away.

What every adapter promises is asked of this one too in tests/contract.
"""

import asyncio
import json
import os
import secrets
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from tests.integration.runtime_bench import MODEL, Bench, client_until, connected, text_of, words
from tests.servers import LettaServer
from tests.stub_model import StubModel
from tests.waiting import Clock, eventually, within

from letta_matrix.runtimes.faults import (
    ConversationGone,
    RuntimeRefused,
    RuntimeUnavailable,
    TurnLost,
)
from letta_matrix.runtimes.protocol import (
    ApprovalRequested,
    StopReason,
    TextDelta,
    ToolReturned,
    TurnFinished,
    TurnRequest,
)


async def test_all_pages_are_listed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    there = len(await bench.runtime.list_agents())
    monkeypatch.setattr("letta_matrix.runtimes.app_server.adapter.PAGE", there // 2 + 1)
    created = [await bench.runtime.create_agent(f"P{n}", model=MODEL) for n in range(3)]
    listed = await bench.runtime.list_agents()
    assert len(listed) == len({agent.agent_id for agent in listed}) == there + 3
    found = {agent.agent_id: agent.model for agent in listed}
    assert [found[agent.agent_id] for agent in created] == [MODEL] * 3


async def test_a_new_agent_thinks_with_what_the_others_do(bench: Bench) -> None:
    """The App Server's own default is gone with its next start."""
    made = await bench.runtime.create_agent("Grace")
    assert made.model == MODEL
    await bench.runtime.delete_agent(made.agent_id)


async def test_what_does_not_exist_is_refused(bench: Bench) -> None:
    with pytest.raises(RuntimeRefused, match="not found"):
        await bench.runtime.rename_agent("agent-nobody", "x")
    with pytest.raises(RuntimeRefused, match="not found"):
        await bench.turn(TurnRequest("agent-nobody", "local-conv-999", "$1", "hello"))
    with pytest.raises(ConversationGone, match="Conversation local-conv-999 not found"):
        await bench.turn(bench.request("hello", "local-conv-999"))
    assert await bench.say("still here") == "echo: still here"


async def test_a_turn_cancelled_before_its_first_word_ends(
    bench: Bench, stub_model: StubModel, clock: Clock
) -> None:
    request = bench.request(f"hang {secrets.token_hex(4)}")
    turn = asyncio.create_task(bench.turn(request))
    await eventually(lambda: stub_model.count(request.text))
    cancelled = asyncio.create_task(bench.cancel())
    await bench.silence(clock, cancelled.done)
    await cancelled
    events = await turn
    assert isinstance(events[-1], TurnFinished)
    assert events[-1].stop_reason is StopReason.CANCELLED
    request = bench.request("after that")
    with pytest.raises(TurnLost) as lost:
        await bench.turn(request)
    assert lost.value.fresh_conversation
    again = bench.request("after that", lost.value.fresh_conversation)
    assert text_of(await bench.turn(again)) == "echo: after that"


async def test_a_killed_client_resumes(bench: Bench, stub_model: StubModel, tmp_path: Path) -> None:
    await bench.runtime.close()
    request = bench.request(f"steps:9 {secrets.token_hex(4)}")
    stub_model.steps.step(request.text, 2)
    state_file = tmp_path / "state"
    written = await client_until(bench, request, state_file, b'"text"', times=3)
    assert b"finished" not in written
    await bench.restart()
    state = json.loads(state_file.read_text())
    turn = asyncio.create_task(bench.turn(request, state))
    stub_model.steps.finish(request.text)
    events = await turn
    assert text_of(events).strip() == words(9)
    assert sum(isinstance(event, TurnFinished) for event in events) == 1
    assert stub_model.count(request.text) == 1
    again = await bench.turn(request, state)
    assert text_of(again).strip() == words(9)
    await bench.runtime.finish_turn(request)


async def test_a_state_saved_before_anything_was_sent_prompts(
    bench: Bench, stub_model: StubModel
) -> None:
    await bench.say("one")
    request = bench.request(f"never sent {secrets.token_hex(4)}")
    events = await bench.turn(request, bench.saved.state)
    assert text_of(events) == f"echo: {request.text}"
    assert stub_model.count(request.text) == 1


async def test_a_killed_keeper_costs_the_turn_that_ran(bench: Bench, stub_model: StubModel) -> None:
    before = bench.request(f"hello {secrets.token_hex(4)}")
    await bench.turn(before)
    state = bench.saved.state
    request = bench.request(f"steps:9 {secrets.token_hex(4)}")
    with pytest.raises(RuntimeUnavailable):
        await bench.turn_with(
            request, TextDelta, lambda: os.kill(bench.keeper_pid(), signal.SIGKILL)
        )
    await connected(bench.runtime)
    with pytest.raises(TurnLost) as lost:
        await bench.turn(request, bench.saved.state)
    assert not lost.value.tools_started
    assert lost.value.fresh_conversation
    stub_model.steps.finish(request.text)
    again = replace(request, conversation_id=lost.value.fresh_conversation)
    assert text_of(await bench.turn(again)).strip() == words(9)
    assert stub_model.count(request.text) == 2
    assert text_of(await bench.turn(before, state)) == f"echo: {before.text}"
    assert stub_model.count(before.text) == 1


async def test_an_app_server_killed_in_mid_turn(
    app_server: LettaServer, bench: Bench, stub_model: StubModel, clock: Clock
) -> None:
    request = bench.request(f"steps:9 {secrets.token_hex(4)}")
    with pytest.raises(RuntimeUnavailable):
        await bench.turn_with(request, TextDelta, app_server.kill)
    clock.stop()
    with pytest.raises(RuntimeUnavailable):
        await within(bench.runtime.list_agents())
    with pytest.raises(RuntimeUnavailable):
        await within(bench.turn(request, bench.saved.state))
    clock.go()
    stub_model.steps.finish(request.text)
    await app_server.restart()
    await connected(bench.runtime)
    events = await bench.turn(request, bench.saved.state)
    assert text_of(events).strip() == words(9)
    # The App Server takes an input that it had not finished up again by itself.
    assert stub_model.count(request.text) == 2
    again = await bench.turn(request, bench.saved.state)
    assert text_of(again).strip() == words(9)
    assert stub_model.count(request.text) == 2
    assert await bench.say("next") == "echo: next"


async def test_an_app_server_killed_while_a_tool_runs(
    app_server: LettaServer, bench: Bench, stub_model: StubModel, tmp_path: Path
) -> None:
    ran, server = tmp_path / "ran", app_server.server.process
    assert server is not None
    command = f"echo x >> {ran}; while kill -0 {server.pid}; do sleep 0.1; done"
    request = bench.request(f"tool:Bash:{command}")
    turn = asyncio.create_task(bench.answered(request))
    await eventually(lambda: ran.exists() and ran.read_text())
    app_server.kill()
    with pytest.raises(RuntimeUnavailable):
        await turn
    await app_server.restart()
    await connected(bench.runtime)
    with pytest.raises(TurnLost) as lost:
        await bench.turn(request, bench.saved.state)
    assert lost.value.tools_started
    assert lost.value.fresh_conversation
    next_request = bench.request("and now?", lost.value.fresh_conversation)
    assert text_of(await bench.turn(next_request)) == "echo: and now?"
    assert ran.read_text() == "x\n"
    assert stub_model.count(request.text) == 1


async def test_an_app_server_killed_while_approvals_wait(
    app_server: LettaServer, bench: Bench, tmp_path: Path
) -> None:
    """No tool has run, so that a question can be asked again; by a bridge that was restarted too,
    as what it saved says that nobody has answered."""
    ran = tmp_path / "ran"
    other = await bench.runtime.create_conversation(bench.agent_id, "room !b")
    text = f"tool:Bash:echo {secrets.token_hex(4)} >> {ran}"
    first, second = bench.request(text), bench.request(text, other)
    await bench.asked(first)
    state = bench.saved.state
    with pytest.raises(RuntimeUnavailable):
        await bench.turn_with(second, ApprovalRequested, app_server.kill)
    await app_server.restart()
    await connected(bench.runtime)
    events = await bench.answered(second, bench.saved.state)
    assert [event.ok for event in events if isinstance(event, ToolReturned)] == [True]
    assert events[-1] == replace(events[-1], stop_reason=StopReason.END_TURN)
    assert text_of(await bench.turn(bench.request("next", other))) == "echo: next"
    await bench.restart()
    unsaid = {key: value for key, value in (state or {}).items() if key != "waiting"}
    with pytest.raises(TurnLost) as lost:
        await bench.turn(first, unsaid)
    assert lost.value.tools_started
    assert len(ran.read_text().splitlines()) == 1


async def test_everything_ended_while_an_approval_waited(
    app_server: LettaServer, bench: Bench, tmp_path: Path
) -> None:
    ran = tmp_path / "ran"
    request = bench.request(f"tool:Bash:echo {secrets.token_hex(4)} >> {ran}")
    await bench.asked(request)
    state = bench.saved.state
    app_server.kill()
    await app_server.restart()
    await bench.restart()
    events = await bench.answered(request, state)
    assert [event.ok for event in events if isinstance(event, ToolReturned)] == [True]
    assert len(ran.read_text().splitlines()) == 1


async def test_an_app_server_restarted_between_turns(
    app_server: LettaServer, bench: Bench, stub_model: StubModel
) -> None:
    request = bench.request(f"hello {secrets.token_hex(4)}")
    await bench.turn(request)
    state = bench.saved.state
    cursor = (await bench.runtime.said_since(bench.agent_id, None)).cursor
    deleted = await bench.runtime.create_conversation(bench.agent_id, "room !b")
    await bench.turn(bench.request("one", deleted))
    for stored in list(app_server.app_server.home.rglob("conversation.json")):
        if json.loads(stored.read_text())["id"] == deleted:
            shutil.rmtree(stored.parent)
    await app_server.restart()  # it has read its files once and for all
    await connected(bench.runtime)
    assert await bench.say("next") == "echo: next"
    assert text_of(await bench.turn(request, state)) == f"echo: {request.text}"
    assert stub_model.count(request.text) == 1
    assert not (await bench.runtime.said_since(bench.agent_id, cursor)).speeches

    request = bench.request(f"two {secrets.token_hex(4)}", deleted)
    with pytest.raises(ConversationGone):
        await bench.turn(request)
    assert stub_model.count(request.text) == 0
    fresh = await bench.runtime.create_conversation(bench.agent_id, "room !b")
    again = replace(request, conversation_id=fresh)
    assert text_of(await bench.turn(again)) == f"echo: {request.text}"
