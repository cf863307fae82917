"""What `letta_matrix.runtimes.protocol` promises, kept by every adapter.

A test is skipped only where the adapter's `capabilities` say that it cannot.
"""

import asyncio
import secrets
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest
from tests.contract.places import Place
from tests.contract.turns import (
    Turn,
    all_said,
    counting,
    heard,
    need,
    new_turn,
    run_in_silence,
    until_run,
)
from tests.waiting import Clock, deadline, eventually, within

from letta_matrix.common.tools import ToolCall, ToolResult, ToolSpec
from letta_matrix.runtimes.faults import RuntimeRefused, RuntimeUnavailable, TurnLost
from letta_matrix.runtimes.protocol import (
    AgentRuntime,
    ApprovalRequested,
    Capabilities,
    Image,
    ImagesDropped,
    StopReason,
    ToolReturned,
    ToolStarted,
    TurnFinished,
    TurnRequest,
    TurnStarted,
)

CAPABILITIES = {
    "app_server": Capabilities(),
    "letta_api": Capabilities(always=False, tools=False),
    "openai_compatible": Capabilities(
        resume=True,
        cancel=False,
        images=False,
        approvals=False,
        always=False,
        models=False,
        tools=False,
        speech=False,
        manage=False,
    ),
    "memory": Capabilities(),
}
NOBODY = "agent-00000000-0000-4000-8000-000000000000"
PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c489"
    "0000000d49444154789c6360000002000154a24f5f0000000049454e44ae426082"
)


async def test_no_capability_is_lost(place: Place) -> None:
    """Without one a test is skipped."""
    assert (await place.open()).capabilities == CAPABILITIES[place.kind]


async def test_agents_are_listed(place: Place) -> None:
    runtime = await place.open()
    agents = await runtime.list_agents()
    assert [agent.agent_id for agent in agents].count(place.agent_id) == 1
    assert all(agent.agent_id and agent.name for agent in agents)


async def test_an_unknown_agent_is_refused(place: Place) -> None:
    runtime = await place.open()
    with pytest.raises(RuntimeRefused):
        await prompt_nobody(runtime)


async def test_agents_are_created_renamed_and_deleted(place: Place) -> None:
    runtime = await place.open()
    if not runtime.capabilities.manage:
        with pytest.raises(RuntimeRefused):
            await runtime.create_agent("Grace")
        return
    made = await runtime.create_agent("Grace", description="maps")
    await runtime.rename_agent(made.agent_id, "Hopper")
    listed = {agent.agent_id: agent for agent in await runtime.list_agents()}
    assert listed[made.agent_id].name == "Hopper"
    assert listed[made.agent_id].description == "maps"
    for _ in range(2):
        await runtime.delete_agent(made.agent_id)
    assert made.agent_id not in [agent.agent_id for agent in await runtime.list_agents()]
    with pytest.raises(RuntimeRefused):
        await runtime.rename_agent(made.agent_id, "Nobody")


async def test_models_are_listed_and_switched(place: Place) -> None:
    runtime = await place.open()
    if not runtime.capabilities.models:
        with pytest.raises(RuntimeRefused):
            await runtime.list_models()
        return
    made = await runtime.create_agent("Grace")
    model = (await runtime.list_models())[-1]
    await runtime.set_model(made.agent_id, model)
    with pytest.raises(RuntimeRefused):
        await runtime.set_model(made.agent_id, "made/up")
    listed = {agent.agent_id: agent for agent in await runtime.list_agents()}
    assert listed[made.agent_id].model == model
    await runtime.delete_agent(made.agent_id)


async def test_a_turn_begins_brings_text_and_ends_once(place: Place) -> None:
    runtime = await place.open()
    turn = await (await new_turn(place, runtime)).run(runtime)
    assert turn.text == f"echo: {turn.request.text}"
    assert turn.end.stop_reason is StopReason.END_TURN
    assert not turn.end.error
    assert isinstance(turn.events[0], TurnStarted)
    assert len(turn.of(TurnFinished)) == 1
    assert place.count(turn.request.text) == 1


async def test_a_turn_followed_after_its_end_is_told_again(place: Place) -> None:
    runtime = await place.open()
    turn = await (await new_turn(place, runtime)).run(runtime)
    text = turn.text
    await runtime.close()
    await turn.run(await place.open())
    assert turn.text == text
    assert turn.end.stop_reason is StopReason.END_TURN
    assert place.count(turn.request.text) == 1


async def test_a_message_of_which_nothing_was_saved_prompts_once(
    place: Place, clock: Clock
) -> None:
    runtime = await place.open()
    need(runtime, "resume")
    turn = await (await new_turn(place, runtime)).run(runtime)
    text, turn.state = turn.text, None
    await run_in_silence(turn, place, runtime, clock)
    assert turn.text == text
    assert place.count(turn.request.text) == 1


async def test_a_message_for_two_agents_prompts_each_once(place: Place, clock: Clock) -> None:
    runtime = await place.open()
    first = await new_turn(place, runtime)
    agent_id = await place.another_agent()
    talk = await runtime.create_conversation(agent_id, "a room")
    text = f"{first.request.text} and Grace"
    request = replace(first.request, agent_id=agent_id, conversation_id=talk, text=text)
    turns = first, Turn(request)
    await asyncio.gather(*(turn.run(runtime) for turn in turns))
    assert [turn.text for turn in turns] == [f"echo: {turn.request.text}" for turn in turns]
    need(runtime, "resume")
    for turn in turns:
        turn.state = None
        await run_in_silence(turn, place, runtime, clock)
    assert [turn.text for turn in turns] == [f"echo: {turn.request.text}" for turn in turns]
    assert place.count(first.request.text) == 2
    assert place.count(text) == 1


@pytest.mark.parametrize("closes", [False, True])
async def test_a_turn_left_in_mid_stream_is_followed_from_its_beginning(
    place: Place, closes: bool
) -> None:
    runtime = await place.open()
    need(runtime, "resume")
    turn = await (await new_turn(place, runtime, "steps:15")).run(runtime, words=1)
    if closes:
        await runtime.close()
        runtime = await place.open()
    running = turn.start(runtime)
    place.steps.finish(turn.request.text)
    await running
    assert turn.text == counting(15)
    assert len(turn.of(TurnFinished)) == 1
    assert place.count(turn.request.text) == 1


async def test_closing_leaves_a_running_turn_resumable(place: Place) -> None:
    runtime = await place.open()
    need(runtime, "resume")
    turn = await new_turn(place, runtime, "steps:15")
    running = turn.start(runtime)
    await turn.has_said(1)
    await runtime.close()
    place.steps.finish(turn.request.text)
    (outcome,) = await asyncio.gather(running, return_exceptions=True)
    assert isinstance(outcome, Turn | RuntimeUnavailable)
    await turn.run(await place.open())
    assert turn.text == counting(15)
    assert place.count(turn.request.text) == 1


async def test_conversations_run_side_by_side_and_remember_their_own(place: Place) -> None:
    runtime = await place.open()
    need(runtime, "conversations")
    first = await (await new_turn(place, runtime, "red")).run(runtime)
    second = await (await new_turn(place, runtime, "blue")).run(runtime)
    assert first.request.conversation_id != second.request.conversation_id
    slow = await new_turn(place, runtime, "steps:3", first.request.conversation_id)
    quick = await new_turn(place, runtime, "quick", second.request.conversation_id)
    running = slow.start(runtime)
    await slow.has_said(1)
    await within(quick.run(runtime))
    assert not running.done()
    place.steps.finish(slow.request.text)
    await running
    told = place.in_view(quick.request.text)
    assert any(second.request.text in one for one in told)
    assert not any(first.request.text in one for one in told)
    told = place.in_view(slow.request.text)
    assert any(first.request.text in one for one in told)
    assert not any(second.request.text in one for one in told)


async def test_a_cancelled_turn_ends_and_the_next_one_runs(place: Place) -> None:
    runtime = await place.open()
    need(runtime, "cancel")
    turn = await new_turn(place, runtime, "steps:9999")
    place.steps.step(turn.request.text, 2)
    running = turn.start(runtime)
    await turn.has_said(3)
    request = turn.request
    cancel = asyncio.create_task(runtime.cancel_turn(request.agent_id, request.conversation_id))
    # An App Server notices it with the model's next word.
    await eventually(lambda: cancel.done() or place.steps.step(request.text))
    await within(cancel)
    await within(running)
    assert turn.end.stop_reason is StopReason.CANCELLED
    assert turn.text.startswith("word1 word2 word3")
    later = await new_turn(place, runtime, "later", request.conversation_id)
    assert (await later.run(runtime)).text == f"echo: {later.request.text}"


@pytest.mark.parametrize("allow", [True, False])
async def test_an_approval_decides(place: Place, tmp_path: Path, allow: bool) -> None:
    runtime = await place.open()
    need(runtime, "approvals")
    turn = await new_turn(place, runtime, f"tool:Bash:touch {tmp_path / 'made'} && echo")
    command = turn.request.text.removeprefix("tool:Bash:")
    answered = ""
    async with aclosing(runtime.run_turn(turn.request, None, turn.save)) as events:
        async for event in events:
            turn.events.append(event)
            if isinstance(event, ApprovalRequested):
                answered = event.approval_id
                assert event.tool == "Bash"
                assert event.arguments["command"] == command
                assert not turn.of(ToolReturned)
                await runtime.answer_approval(
                    turn.request, answered, allow=allow, message="not today"
                )
    assert answered
    assert allow or not (tmp_path / "made").exists()
    assert [event.ok for event in turn.of(ToolReturned)] == [allow]
    assert len(turn.of(ToolStarted)) == 1
    assert ("not today" in turn.text) is not allow
    assert (command.rpartition(" ")[2] in turn.text) is allow
    assert turn.end.stop_reason is StopReason.END_TURN
    with pytest.raises(RuntimeRefused):
        await runtime.answer_approval(turn.request, answered, allow=True)


async def test_a_pending_approval_is_reported_again_after_a_restart(
    place: Place, tmp_path: Path
) -> None:
    runtime = await place.open()
    need(runtime, "approvals")
    turn = await new_turn(place, runtime, f"tool:Bash:touch {tmp_path / 'made'} && echo")
    asked = await turn.ask_approval(runtime)
    await runtime.close()
    runtime = await place.open()
    async with aclosing(runtime.run_turn(turn.request, turn.state, turn.save)) as events:
        async for event in events:
            turn.events.append(event)
            if isinstance(event, ApprovalRequested):
                assert event == asked
                await runtime.answer_approval(turn.request, event.approval_id, allow=True)
    assert len(turn.of(ApprovalRequested)) == 1
    assert turn.text.startswith("tool said: ")
    assert place.count(turn.request.text) == 1


async def test_a_turn_that_waits_for_an_approval_can_be_cancelled(
    place: Place, tmp_path: Path
) -> None:
    runtime = await place.open()
    need(runtime, "approvals")
    turn = await new_turn(place, runtime, f"tool:Bash:touch {tmp_path / 'made'} && echo")
    request = turn.request
    async with deadline(), aclosing(runtime.run_turn(request, None, turn.save)) as events:
        async for event in events:
            turn.events.append(event)
            if isinstance(event, ApprovalRequested):
                await runtime.cancel_turn(request.agent_id, request.conversation_id)
    (asked,) = turn.of(ApprovalRequested)
    assert turn.end.stop_reason is StopReason.CANCELLED
    assert not (tmp_path / "made").exists()
    with pytest.raises(RuntimeRefused):
        await runtime.answer_approval(request, asked.approval_id, allow=True)
    later = await new_turn(place, runtime, "later", request.conversation_id)
    assert (await later.run(runtime)).text == f"echo: {later.request.text}"


async def test_an_offered_tool_runs_here(place: Place) -> None:
    calls: list[ToolCall] = []

    async def handle(call: ToolCall) -> ToolResult:
        calls.append(call)
        return ToolResult(f"pong {call.arguments['word']}")

    schema = {"type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"]}
    runtime = await place.open(ToolSpec("matrix_ping", "Answers with a word.", schema), handle)
    need(runtime, "tools")
    talk = await runtime.create_conversation(place.agent_id, "a room")
    word = secrets.token_hex(6)
    said = await place.use_tool(runtime, talk, "matrix_ping", word)
    assert said == f"tool said: pong {word}"
    (call,) = calls
    assert (call.agent_id, call.conversation_id) == (place.agent_id, talk)
    assert (call.name, call.arguments) == ("matrix_ping", {"word": word})
    assert call.call_id


async def test_an_error_of_the_model_is_one_line(place: Place) -> None:
    runtime = await place.open()
    turn = await (await new_turn(place, runtime, "error:500")).run(runtime)
    assert turn.end.stop_reason is StopReason.ERROR
    assert turn.end.error
    assert len(turn.end.error.splitlines()) == 1
    asked = place.count(turn.request.text)
    await runtime.close()
    runtime = await place.open()
    await turn.run(runtime)
    assert turn.end.stop_reason is StopReason.ERROR
    assert place.count(turn.request.text) == asked
    later = await new_turn(place, runtime, "later", turn.request.conversation_id)
    assert (await later.run(runtime)).text == f"echo: {later.request.text}"


async def test_an_unreachable_server_takes_nothing_and_comes_back(place: Place) -> None:
    runtime = await place.open()
    turn = await new_turn(place, runtime)
    await place.down()
    try:
        async with deadline():
            with pytest.raises(RuntimeUnavailable):
                await runtime.list_agents()
            with pytest.raises(RuntimeUnavailable):
                await turn.run(runtime)
    finally:
        await place.up()
    await until_run(turn, runtime)
    assert turn.text == f"echo: {turn.request.text}"
    assert place.count(turn.request.text) == 1


async def test_an_outage_in_mid_turn_asks_nobody_twice(place: Place) -> None:
    runtime = await place.open()
    turn = await new_turn(place, runtime, "steps:15")
    running = turn.start(runtime)
    await turn.has_said(1)
    await place.down()
    try:
        async with deadline():
            with pytest.raises(RuntimeUnavailable):
                await running
            with pytest.raises(RuntimeUnavailable):
                await runtime.list_agents()
    finally:
        await place.up()
    place.steps.finish(turn.request.text)
    conversation_id = turn.request.conversation_id
    try:
        await until_run(turn, runtime)
        assert turn.text == counting(15)
    except TurnLost as lost:
        assert place.loses_turns
        conversation_id = lost.fresh_conversation or conversation_id
    more = await new_turn(place, runtime, "more", conversation_id)
    assert (await more.run(runtime)).text == f"echo: {more.request.text}"
    assert place.count(turn.request.text) == 1
    assert place.count(more.request.text) == 1


async def test_what_an_agent_says_by_itself_is_told_once(place: Place) -> None:
    runtime = await place.open()
    need(runtime, "speech")
    start = await runtime.said_since(place.agent_id, None)
    assert not start.speeches
    turn = await (await new_turn(place, runtime)).run(runtime)
    await runtime.finish_turn(turn.request)
    word = secrets.token_hex(6)
    await place.say(f"morning {word}")
    said = await heard(runtime, place.agent_id, start.cursor)
    assert [speech.text for speech in said.speeches] == [f"echo: morning {word}"]
    assert all(speech.message_id for speech in said.speeches)
    assert not (await runtime.said_since(place.agent_id, said.cursor)).speeches
    await runtime.close()
    runtime = await place.open()
    assert not (await runtime.said_since(place.agent_id, said.cursor)).speeches
    again = await runtime.said_since(place.agent_id, start.cursor)
    assert [one.message_id for one in again.speeches] == [one.message_id for one in said.speeches]
    whole = await all_said(runtime, place.agent_id)
    assert [one.message_id for one in whole].count(said.speeches[0].message_id) == 1
    assert not [one for one in whole if turn.request.text in one.text]


async def test_an_image_arrives_or_is_reported_dropped(place: Place) -> None:
    runtime = await place.open()
    plain = await new_turn(place, runtime, "look")
    image = Image("pixel.png", "image/png", PIXEL)
    request = plain.request
    turn = Turn(
        TurnRequest(
            request.agent_id, request.conversation_id, request.message_id, request.text, (image,)
        )
    )
    await turn.run(runtime)
    assert turn.end.stop_reason is StopReason.END_TURN
    dropped = turn.of(ImagesDropped)
    assert len(dropped) <= 1
    assert place.seen(request.text) == ([] if dropped else [PIXEL])
    assert all(one.reason and len(one.reason.splitlines()) == 1 for one in dropped)


async def prompt_nobody(runtime: AgentRuntime) -> None:
    conversation_id = await runtime.create_conversation(NOBODY, "a room")
    await Turn(TurnRequest(NOBODY, conversation_id, "$1:localhost", "hello")).run(runtime)


async def test_who_has_never_run_is_listed_so(place: Place) -> None:
    runtime = await place.open()
    need(runtime, "speech")
    newborn = await place.another_agent()
    listed = {agent.agent_id: agent.last_run for agent in await runtime.list_agents()}
    assert listed[newborn] == ""
