"""The App Server adapter and its keeper against a real App Server."""

import asyncio
import json
import os
import secrets
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tests.integration.runtime_bench import MODEL, Bench, client_until, connected, text_of, words
from tests.servers import LettaServer
from tests.stub_model import StubModel

from letta_matrix.runtimes.protocol import (
    ApprovalRequested,
    ConversationGone,
    RuntimeRefused,
    RuntimeUnavailable,
    StopReason,
    TextDelta,
    ToolReturned,
    ToolStarted,
    TurnEvent,
    TurnFinished,
    TurnLost,
    TurnRequest,
)


async def test_agents_are_created_listed_and_renamed(bench: Bench) -> None:
    created = await bench.runtime.create_agent("Meridian", model=MODEL, description="maps")
    await bench.runtime.rename_agent(created.agent_id, "Meridian II")
    listed = {agent.agent_id: agent for agent in await bench.runtime.list_agents()}
    assert listed[created.agent_id].name == "Meridian II"
    assert listed[created.agent_id].description == "maps"
    assert listed[created.agent_id].model == MODEL


async def test_all_pages_are_listed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("letta_matrix.runtimes.app_server.adapter.PAGE", 2)
    created = [await bench.runtime.create_agent(f"P{n}", model=MODEL) for n in range(3)]
    listed = [agent.agent_id for agent in await bench.runtime.list_agents()]
    assert len(listed) == len(set(listed))
    assert {agent.agent_id for agent in created} <= set(listed)


async def test_an_unknown_agent_is_refused(bench: Bench) -> None:
    with pytest.raises(RuntimeRefused, match="not found"):
        await bench.runtime.rename_agent("agent-nobody", "x")
    request = TurnRequest("agent-nobody", "local-conv-999", "$1", "hello")
    with pytest.raises(RuntimeRefused, match="not found"):
        await bench.turn(request)


async def test_an_unknown_conversation_is_gone(bench: Bench) -> None:
    with pytest.raises(ConversationGone, match="Conversation local-conv-999 not found"):
        await bench.turn(bench.request("hello", "local-conv-999"))
    assert await bench.say("still here") == "echo: still here"


async def test_a_deleted_conversation_is_gone_and_a_new_one_answers(
    app_server: LettaServer, bench: Bench, stub_model: StubModel
) -> None:
    assert await bench.say("one") == "echo: one"
    for stored in list(app_server.app_server.home.rglob("conversation.json")):
        if json.loads(stored.read_text())["id"] == bench.conversation_id:
            shutil.rmtree(stored.parent)
    await app_server.restart()  # it has read its files once and for all
    await connected(bench.runtime)
    request = bench.request(f"two {secrets.token_hex(4)}")
    with pytest.raises(ConversationGone):
        await bench.turn(request)
    assert stub_model.count(request.text) == 0
    fresh = await bench.runtime.create_conversation(bench.agent_id, "room !a")
    again = replace(request, conversation_id=fresh)
    assert text_of(await bench.turn(again)) == f"echo: {request.text}"


async def test_a_turn_brings_text_and_one_end(bench: Bench, stub_model: StubModel) -> None:
    request = bench.request(f"hello {secrets.token_hex(4)}")
    events = await bench.turn(request)
    assert text_of(events) == f"echo: {request.text}"
    assert isinstance(events[-1], TurnFinished)
    assert events[-1].stop_reason is StopReason.END_TURN
    assert stub_model.count(request.text) == 1
    assert await bench.say("and again") == "echo: and again"


async def test_conversations_run_side_by_side(bench: Bench) -> None:
    other = await bench.runtime.create_conversation(bench.agent_id, "room !b")
    await asyncio.gather(bench.say("warm"), bench.turn(bench.request("up", other)))
    slow = asyncio.create_task(bench.say("slow:30"))
    await asyncio.sleep(0.3)
    quick = await bench.turn(bench.request("quick", other))
    assert not slow.done()
    assert text_of(quick) == "echo: quick"
    assert (await slow).strip() == words(30)


async def test_a_cancelled_turn_ends_and_the_next_one_runs(bench: Bench) -> None:
    turn = asyncio.create_task(bench.turn(bench.request("slow:60")))
    await asyncio.sleep(1.5)
    await bench.runtime.cancel_turn(bench.agent_id, bench.conversation_id)
    events = await turn
    assert isinstance(events[-1], TurnFinished)
    assert events[-1].stop_reason is StopReason.CANCELLED
    assert await bench.say("next") == "echo: next"


async def test_a_turn_cancelled_before_its_first_word_ends(bench: Bench) -> None:
    turn = asyncio.create_task(bench.turn(bench.request("hang")))
    await asyncio.sleep(1.5)
    await bench.runtime.cancel_turn(bench.agent_id, bench.conversation_id)
    events = await turn
    assert isinstance(events[-1], TurnFinished)
    assert events[-1].stop_reason is StopReason.CANCELLED
    request = bench.request("after that")
    with pytest.raises(TurnLost) as lost:
        await bench.turn(request)
    assert lost.value.fresh_conversation
    again = bench.request("after that", lost.value.fresh_conversation)
    assert text_of(await bench.turn(again)) == "echo: after that"


@pytest.mark.parametrize("allow", [True, False])
async def test_approvals(bench: Bench, tmp_path: Path, allow: bool) -> None:
    made = tmp_path / "made"
    request = bench.request(f"tool:Bash:touch {made}")
    events: list[TurnEvent] = []
    async for event in bench.runtime.run_turn(request, None, bench.saved.save):
        events.append(event)
        if isinstance(event, ApprovalRequested):
            assert event.tool == "Bash"
            assert event.arguments["command"] == f"touch {made}"
            await bench.runtime.answer_approval(
                request, event.approval_id, allow=allow, message="not today"
            )
    assert made.exists() is allow
    returned = [event for event in events if isinstance(event, ToolReturned)]
    assert [event.ok for event in returned] == [allow]
    assert [e.name for e in events if isinstance(e, ToolStarted)] == ["Bash"]
    assert text_of(events).startswith("tool said: " + ("" if allow else "not today"))


async def test_an_answered_approval_is_refused_afterwards(bench: Bench) -> None:
    with pytest.raises(RuntimeRefused):
        await bench.runtime.answer_approval(bench.request(""), "perm-nothing", allow=True)


async def test_a_failing_model_is_one_line(bench: Bench) -> None:
    events = await bench.turn(bench.request("error:500"))
    assert isinstance(events[-1], TurnFinished)
    assert events[-1].stop_reason is StopReason.ERROR
    expected = "the model provider answered HTTP 500: the stub model was told to fail"
    assert events[-1].error == expected


async def test_a_repeated_message_is_answered_from_what_is_stored(
    bench: Bench, stub_model: StubModel
) -> None:
    request = bench.request(f"once {secrets.token_hex(4)}")
    first = await bench.turn(request)
    again = await bench.turn(request)
    assert text_of(again) == text_of(first)
    assert isinstance(again[-1], TurnFinished)
    assert stub_model.count(request.text) == 1


async def test_a_killed_client_resumes(bench: Bench, stub_model: StubModel, tmp_path: Path) -> None:
    await bench.runtime.close()
    request = bench.request(f"slow:30 {secrets.token_hex(4)}")
    state_file = tmp_path / "state"
    written = await client_until(bench, request, state_file, b'"text"', times=3)
    assert b"finished" not in written
    await bench.restart()
    state = json.loads(state_file.read_text())
    events = await bench.turn(request, state)
    assert text_of(events).strip() == words(30)
    assert sum(isinstance(event, TurnFinished) for event in events) == 1
    assert stub_model.count(request.text) == 1
    again = await bench.turn(request, state)
    assert text_of(again).strip() == words(30)
    await bench.runtime.finish_turn(request)


async def test_a_turn_can_be_closed_and_followed_again(bench: Bench, stub_model: StubModel) -> None:
    request = bench.request(f"slow:20 {secrets.token_hex(4)}")
    events = bench.runtime.run_turn(request, None, bench.saved.save)
    async for event in events:
        if isinstance(event, TextDelta):
            break
    await events.aclose()
    assert text_of(await bench.turn(request, bench.saved.state)).strip() == words(20)
    assert stub_model.count(request.text) == 1


async def test_a_state_saved_before_anything_was_sent_prompts(
    bench: Bench, stub_model: StubModel
) -> None:
    await bench.say("one")
    request = bench.request(f"never sent {secrets.token_hex(4)}")
    events = await bench.turn(request, bench.saved.state)
    assert text_of(events) == f"echo: {request.text}"
    assert stub_model.count(request.text) == 1


async def test_a_keeper_killed_in_mid_turn(bench: Bench, stub_model: StubModel) -> None:
    await bench.say("warm")
    request = bench.request(f"slow:30 {secrets.token_hex(4)}")
    with pytest.raises(RuntimeUnavailable):
        await bench.turn_with(request, lambda: os.kill(bench.keeper_pid(), signal.SIGKILL))
    await connected(bench.runtime)
    with pytest.raises(TurnLost) as lost:
        await bench.turn(request, bench.saved.state)
    assert not lost.value.tools_started
    assert lost.value.fresh_conversation
    again = TurnRequest(
        request.agent_id, lost.value.fresh_conversation, request.message_id, request.text
    )
    assert text_of(await bench.turn(again)).strip() == words(30)
    assert stub_model.count(request.text) == 2


async def test_a_keeper_killed_after_the_turn(bench: Bench, stub_model: StubModel) -> None:
    request = bench.request(f"hello {secrets.token_hex(4)}")
    await bench.turn(request)
    state = bench.saved.state
    assert await bench.say("later") == "echo: later"
    os.kill(bench.keeper_pid(), signal.SIGKILL)
    await asyncio.sleep(0.5)
    await connected(bench.runtime)
    assert text_of(await bench.turn(request, state)) == f"echo: {request.text}"
    assert stub_model.count(request.text) == 1


async def test_an_app_server_killed_in_mid_turn(
    app_server: LettaServer, bench: Bench, stub_model: StubModel
) -> None:
    request = bench.request(f"slow:30 {secrets.token_hex(4)}")
    with pytest.raises(RuntimeUnavailable):
        await bench.turn_with(request, app_server.kill)
    began = time.monotonic()
    with pytest.raises(RuntimeUnavailable):
        await bench.runtime.list_agents()
    with pytest.raises(RuntimeUnavailable):
        await bench.turn(request, bench.saved.state)
    assert time.monotonic() - began < 1
    await app_server.restart()
    await connected(bench.runtime)
    events = await bench.turn(request, bench.saved.state)
    assert text_of(events).strip() == words(30)
    # The App Server takes an input that it had not finished up again by itself.
    assert stub_model.count(request.text) == 2
    again = await bench.turn(request, bench.saved.state)
    assert text_of(again).strip() == words(30)
    assert stub_model.count(request.text) == 2
    assert await bench.say("next") == "echo: next"


async def test_an_app_server_killed_while_a_tool_runs(
    app_server: LettaServer, bench: Bench, stub_model: StubModel, tmp_path: Path
) -> None:
    ran = tmp_path / "ran"
    await bench.say("warm")
    command = f"echo x >> {ran}; python3 -c 'import time; time.sleep(5)'"
    request = bench.request(f"tool:Bash:{command}")
    with pytest.raises(RuntimeUnavailable):
        await bench.turn_with_tool(request, app_server.kill)
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


async def until_asked(bench: Bench, request: TurnRequest, do: Callable[[], None]) -> None:
    """Run a turn, and do something when it asks for an approval."""
    async for event in bench.runtime.run_turn(request, None, bench.saved.save):
        if isinstance(event, ApprovalRequested):
            do()


@pytest.mark.parametrize("bridge_too", [False, True])
async def test_an_app_server_killed_while_an_approval_waits(
    app_server: LettaServer, bench: Bench, tmp_path: Path, bridge_too: bool
) -> None:
    """No tool has run, so that the question can be asked again; by a bridge that was restarted
    it cannot, for the one before may have answered."""
    ran = tmp_path / "ran"
    request = bench.request(f"tool:Bash:echo {secrets.token_hex(4)} >> {ran}")
    with pytest.raises(RuntimeUnavailable):
        await until_asked(bench, request, app_server.kill)
    await app_server.restart()
    await connected(bench.runtime)
    if bridge_too:
        await bench.restart()
        with pytest.raises(TurnLost) as lost:
            await bench.turn(request, bench.saved.state)
        assert lost.value.tools_started
        return
    events: list[TurnEvent] = []
    async for event in bench.runtime.run_turn(request, bench.saved.state, bench.saved.save):
        events.append(event)
        if isinstance(event, ApprovalRequested):
            await bench.runtime.answer_approval(request, event.approval_id, allow=True)
    assert [event.ok for event in events if isinstance(event, ToolReturned)] == [True]
    assert events[-1] == replace(events[-1], stop_reason=StopReason.END_TURN)
    assert len(ran.read_text().splitlines()) == 1
    assert await bench.say("next") == "echo: next"


async def test_an_app_server_restarted_between_turns(
    app_server: LettaServer, bench: Bench, stub_model: StubModel
) -> None:
    request = bench.request(f"hello {secrets.token_hex(4)}")
    await bench.turn(request)
    state = bench.saved.state
    await app_server.restart()
    await connected(bench.runtime)
    assert await bench.say("next") == "echo: next"
    assert text_of(await bench.turn(request, state)) == f"echo: {request.text}"
    assert stub_model.count(request.text) == 1
