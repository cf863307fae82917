"""Turns on a Letta API: asked once, followed through crashes, cuts and nonsense."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest
from tests.fake_letta_api import FakeLettaApi
from tests.fake_letta_runs import Run
from tests.unit.letta_api_bridge import Bridge, adapter, end_of, text_of
from tests.waiting import Clock, eventually, settled, within

from letta_matrix.runtimes.faults import (
    AgentGone,
    ConversationGone,
    CredentialsRefused,
    RateLimited,
    RuntimeBusy,
    RuntimeRefused,
    RuntimeUnavailable,
    TurnLost,
)
from letta_matrix.runtimes.letta_api.client import STREAM_SILENCE
from letta_matrix.runtimes.letta_api.turns import CANCEL_GRACE
from letta_matrix.runtimes.protocol import (
    Image,
    ReasoningDelta,
    StopReason,
    TextDelta,
    TextEnded,
    ToolReturned,
    ToolStarted,
    TurnEvent,
    TurnFinished,
    TurnRequest,
    TurnStarted,
    TurnState,
)

SEND = r"POST /v1/conversations/.*/messages"
CANCEL = r"POST /v1/conversations/.*/cancel"
LOOK = r"GET /v1/runs/[^/]+"


@pytest.fixture
async def server() -> AsyncGenerator[FakeLettaApi]:
    async with FakeLettaApi() as fake:
        yield fake


@pytest.fixture
async def bridge(server: FakeLettaApi) -> AsyncGenerator[Bridge]:
    runtime = adapter(server)
    agent_id = server.add_agent("Alpha")
    made = Bridge(server, runtime, agent_id, await runtime.create_conversation(agent_id, "a room"))
    yield made
    await made.runtime.close()


def run_of(bridge: Bridge) -> Run:
    (run,) = bridge.server.runs.values()
    return run


async def test_a_turn_is_streamed_from_its_start_to_its_end(bridge: Bridge) -> None:
    events = await bridge.run(bridge.request("hello"))
    run_id = next(iter(bridge.server.runs))
    assert events[0] == TurnStarted(run_id)
    assert text_of(events) == "echo: hello"
    assert events[-2:] == [TextEnded(), TurnFinished(StopReason.END_TURN, run_id=run_id)]
    assert bridge.server.bodies[0] == {
        "messages": [{"role": "user", "content": "hello", "otid": f"$one/{bridge.agent_id}"}],
        "streaming": True,
        "background": True,
        "stream_tokens": True,
        "include_pings": True,
    }


async def test_the_state_is_saved_before_the_prompt_is_sent(bridge: Bridge) -> None:
    async def refuse(_: TurnState) -> None:
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="disk"):
        async for _ in bridge.runtime.run_turn(bridge.request("hello"), None, refuse):
            pass
    assert bridge.server.prompts == []


async def test_reasoning_and_tools_are_told_apart_from_the_reply(bridge: Bridge) -> None:
    events = await bridge.run(bridge.request("think well"))
    assert [event.text for event in events if isinstance(event, ReasoningDelta)] == ["hm, hm"]
    assert text_of(events) == "echo: think well"
    events = await bridge.run(bridge.request('tool:look_up:{"a": 1}', "$two"))
    started = [event for event in events if isinstance(event, ToolStarted)]
    assert [(call.name, call.arguments) for call in started] == [("look_up", '{"a": 1}')]
    returned = [event for event in events if isinstance(event, ToolReturned)]
    assert [(call.call_id, call.ok) for call in returned] == [(started[0].call_id, True)]


async def test_images_go_to_the_model(bridge: Bridge) -> None:
    image = Image("dot.png", "image/png", b"\x89PNG")
    request = TurnRequest(bridge.agent_id, bridge.conversation_id, "$one", "see", (image,))
    assert text_of(await bridge.run(request)) == "echo: see"
    source = {"type": "base64", "media_type": "image/png", "data": "iVBORw=="}
    content = bridge.server.bodies[0]["messages"][0]["content"]
    assert content == [{"type": "text", "text": "see"}, {"type": "image", "source": source}]


async def test_after_a_crash_in_mid_stream_the_same_run_is_followed(bridge: Bridge) -> None:
    request = bridge.request("steps:5")
    bridge.server.steps.step("steps:5")
    async with aclosing(bridge.follow(request)) as events:
        async for event in events:
            if isinstance(event, TextDelta) and event.text == "word2 ":
                break
    await bridge.crash()
    rest = await bridge.reach(request, TextDelta)
    bridge.server.steps.finish("steps:5")
    events = await rest
    assert text_of(events) == "word1 word2 word3 word4 word5 "
    assert end_of(events).run_id == run_of(bridge).id
    assert bridge.server.prompts == ["steps:5"]


async def test_a_crash_before_the_run_is_known_does_not_ask_twice(bridge: Bridge) -> None:
    request = bridge.request("hello")
    bridge.server.cut_after = 0
    with pytest.raises(RuntimeUnavailable):
        await bridge.run(request)
    assert bridge.states["$one"]["runs"] == []
    await bridge.crash()
    assert text_of(await bridge.run(request)) == "echo: hello"
    assert bridge.server.prompts == ["hello"]


async def test_a_prompt_whose_otid_was_forgotten_is_found_in_the_history(bridge: Bridge) -> None:
    request = bridge.request("hello")
    bridge.server.cut_after = 0
    with pytest.raises(RuntimeUnavailable):
        await bridge.run(request)
    bridge.server.forget_otids()
    await bridge.crash()
    assert text_of(await bridge.run(request)) == "echo: hello"
    assert bridge.server.prompts == ["hello"]


async def test_a_prompt_that_never_arrived_is_sent_again(bridge: Bridge) -> None:
    request = bridge.request("hello")
    bridge.server.fail(SEND, 0)
    with pytest.raises(RuntimeUnavailable, match="reached"):
        await bridge.run(request)
    assert bridge.server.prompts == []
    assert text_of(await bridge.run(request)) == "echo: hello"
    assert bridge.server.prompts == ["hello"]


async def test_a_cut_stream_is_followed_again_from_its_beginning(bridge: Bridge) -> None:
    request = bridge.request("steps:4")
    bridge.server.steps.step("steps:4")
    bridge.server.cut_after = 2
    with pytest.raises(RuntimeUnavailable):
        await bridge.run(request)
    bridge.server.steps.finish("steps:4")
    assert text_of(await bridge.run(request)) == "word1 word2 word3 word4 "
    assert bridge.server.count("steps:4") == 1


async def test_a_stream_cut_after_its_stop_reason_is_whole(bridge: Bridge) -> None:
    bridge.server.cut_after = 3
    events = await bridge.run(bridge.request("hello"))
    assert end_of(events).stop_reason is StopReason.END_TURN


async def test_nonsense_in_a_stream_is_counted_and_the_turn_goes_on(bridge: Bridge) -> None:
    request = bridge.request("steps:3")
    bridge.server.garbage_after = 1
    with pytest.raises(RuntimeUnavailable):
        await bridge.run(request)
    bridge.server.steps.finish("steps:3")
    assert bridge.runtime.counters["malformed stream event"] >= 2
    assert text_of(await bridge.run(request)) == "word1 word2 word3 "


async def test_a_silent_stream_counts_as_broken(bridge: Bridge, clock: Clock) -> None:
    clock.stop()
    bridge.server.silent = True
    turn = asyncio.create_task(bridge.run(bridge.request("hello")))
    await eventually(lambda: bridge.server.prompts)
    await settled(turn)
    clock.advance(STREAM_SILENCE - 1)
    await settled(turn)
    clock.advance(2)
    with pytest.raises(RuntimeUnavailable, match="in time"):
        await turn
    bridge.server.silent = False
    assert text_of(await bridge.run(bridge.request("hello"))) == "echo: hello"
    assert bridge.server.prompts == ["hello"]


async def test_pings_keep_a_slow_stream_alive(bridge: Bridge, clock: Clock) -> None:
    clock.stop()
    bridge.server.ping_every = STREAM_SILENCE / 4
    turn = asyncio.create_task(bridge.run(bridge.request("hang")))
    await eventually(lambda: bridge.server.prompts)
    for looks in range(5):
        await settled(turn)
        clock.advance(bridge.server.ping_every)
        await eventually(lambda: len(bridge.server.lines(LOOK)), looks.__le__)
    await settled(turn)
    await bridge.runtime.cancel_turn(bridge.agent_id, bridge.conversation_id)
    assert end_of(await turn).stop_reason is StopReason.CANCELLED


async def test_a_run_that_streams_no_more_is_read_from_its_messages(bridge: Bridge) -> None:
    request = bridge.request('tool:look_up:{"a": 1}')
    bridge.server.cut_after = 1
    with pytest.raises(RuntimeUnavailable):
        await bridge.run(request)
    bridge.server.without_redis = True
    events = await bridge.run(request)
    assert text_of(events) == 'tool said: look_up was called with {"a": 1}'
    assert [event.name for event in events if isinstance(event, ToolStarted)] == ["look_up"]
    assert isinstance(events[0], TurnStarted)
    assert end_of(events).stop_reason is StopReason.END_TURN


async def test_a_running_run_that_streams_no_more_is_waited_for(bridge: Bridge) -> None:
    request = bridge.request("steps:4")
    bridge.server.cut_after = 1
    with pytest.raises(RuntimeUnavailable):
        await bridge.run(request)
    bridge.server.without_redis = True
    with pytest.raises(RuntimeUnavailable, match="before its run did"):
        await bridge.run(request)
    bridge.server.steps.finish("steps:4")
    await eventually(lambda: run_of(bridge).ended)
    assert text_of(await bridge.run(request)) == "word1 word2 word3 word4 "


async def test_a_stream_its_server_lost_is_not_waited_for(bridge: Bridge, clock: Clock) -> None:
    request = bridge.request("hello")
    bridge.server.cut_after = 1
    with pytest.raises(RuntimeUnavailable):
        await bridge.run(request)
    await eventually(lambda: run_of(bridge).ended)
    bridge.server.lose_streams()
    assert text_of(await clock.through(bridge.run(request), step=0.1)) == "echo: hello"


@pytest.mark.parametrize("text", ["hello", 'tool:look_up:{"a": 1}'])
async def test_a_run_its_server_forgot_is_lost(bridge: Bridge, text: str) -> None:
    request = bridge.request(text)
    bridge.server.cut_after = 1
    with pytest.raises(RuntimeUnavailable):
        await bridge.run(request)
    bridge.server.forget_runs()
    with pytest.raises(TurnLost) as lost:
        await bridge.run(request)
    assert lost.value.tools_started == text.startswith("tool:")


async def test_a_server_without_background_runs_is_refused_with_the_reason(bridge: Bridge) -> None:
    bridge.server.without_redis = True
    with pytest.raises(RuntimeRefused, match="Redis"):
        await bridge.run(bridge.request("hello"))


async def test_a_second_turn_in_a_conversation_finds_it_busy(bridge: Bridge) -> None:
    first = bridge.follow(bridge.request("steps:2"))
    await anext(first)
    other = Bridge(bridge.server, bridge.runtime, bridge.agent_id, bridge.conversation_id)
    with pytest.raises(RuntimeBusy):
        await other.run(bridge.request("hello", "$two"))
    await first.aclose()
    await bridge.runtime.cancel_turn(bridge.agent_id, bridge.conversation_id)
    assert text_of(await other.run(bridge.request("hello", "$two"))) == "echo: hello"


async def test_two_conversations_of_an_agent_run_side_by_side(bridge: Bridge) -> None:
    second = await bridge.runtime.create_conversation(bridge.agent_id, "a thread")
    other = Bridge(bridge.server, bridge.runtime, bridge.agent_id, second)
    both = [
        await bridge.reach(bridge.request("steps:5 one"), TextDelta),
        await other.reach(other.request("steps:5 two", "$two"), TextDelta),
    ]
    bridge.server.steps.finish("steps:5")
    assert [text_of(await turn).split()[-1] for turn in both] == ["word5", "word5"]


async def test_a_rate_limit_tells_how_long_to_wait(bridge: Bridge) -> None:
    bridge.server.fail(SEND, 429, retry_after="7")
    with pytest.raises(RateLimited) as limited:
        await bridge.run(bridge.request("hello"))
    assert limited.value.retry_after == 7
    assert len(bridge.server.lines(SEND)) == 1, "a send is never repeated by the client"


async def test_an_expired_key_is_told_without_the_key(bridge: Bridge) -> None:
    await bridge.runtime.close()
    bridge.runtime = adapter(bridge.server, "sk-old")
    with pytest.raises(CredentialsRefused) as refused:
        await bridge.run(bridge.request("hello"))
    assert "401" in str(refused.value)
    assert "sk-old" not in str(refused.value)


async def test_an_error_that_repeats_our_key_does_not_carry_it_on(bridge: Bridge) -> None:
    bridge.server.fail(SEND, 400, body='{"detail": "bad key letta-key\\nstack"}')
    with pytest.raises(RuntimeRefused) as refused:
        await bridge.run(bridge.request("hello"))
    assert str(refused.value).endswith("refused (HTTP 400): bad key ***")


async def test_a_deleted_agent_and_a_deleted_conversation_are_told_apart(bridge: Bridge) -> None:
    other = bridge.server.add_agent("Beta")
    gone = await bridge.runtime.create_conversation(other, "x")
    del bridge.server.conversations[gone]
    with pytest.raises(ConversationGone):
        await Bridge(bridge.server, bridge.runtime, other, gone).run(
            TurnRequest(other, gone, "$x", "hello")
        )
    bridge.server.remove_agent(bridge.agent_id)
    with pytest.raises(AgentGone):
        await bridge.run(bridge.request("hello"))
    with pytest.raises(AgentGone):
        await bridge.runtime.create_conversation(bridge.agent_id, "x")


@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_a_failing_server_is_unavailable(bridge: Bridge, status: int) -> None:
    bridge.server.fail(SEND, status, body="<html>nginx</html>")
    with pytest.raises(RuntimeUnavailable, match=str(status)):
        await bridge.run(bridge.request("hello"))
    assert text_of(await bridge.run(bridge.request("hello"))) == "echo: hello"


async def test_a_server_that_is_down_is_unavailable(bridge: Bridge) -> None:
    await bridge.server.__aexit__()
    with pytest.raises(RuntimeUnavailable, match="cannot be reached"):
        await bridge.run(bridge.request("hello"))


async def test_an_answer_that_is_no_stream_is_unavailable(bridge: Bridge) -> None:
    bridge.server.fail(SEND, 200, body="<html>welcome\n\nto the portal</html>\n")
    with pytest.raises(RuntimeUnavailable, match="named its run"):
        await bridge.run(bridge.request("hello"))
    assert bridge.runtime.counters["malformed stream line"] == 2


async def test_a_failing_model_ends_the_turn_with_its_reason(bridge: Bridge) -> None:
    end = end_of(await bridge.run(bridge.request("error:500")))
    assert end.stop_reason is StopReason.ERROR
    assert end.error == "An error occurred with the LLM request."
    assert text_of(await bridge.run(bridge.request("hello", "$two"))) == "echo: hello"


async def test_cancelling_ends_the_turn_and_keeps_what_was_said(bridge: Bridge) -> None:
    events: list[TurnEvent] = []
    bridge.server.steps.step("steps:3")
    async for event in bridge.follow(bridge.request("steps:3")):
        events.append(event)
        if isinstance(event, TextDelta) and event.text == "word2 ":
            await bridge.runtime.cancel_turn(bridge.agent_id, bridge.conversation_id)
    assert text_of(events) == "word1 word2 "
    assert end_of(events).stop_reason is StopReason.CANCELLED
    assert text_of(await bridge.run(bridge.request("hello", "$two"))) == "echo: hello"


async def test_cancelling_where_nothing_runs_is_no_error(bridge: Bridge) -> None:
    await bridge.runtime.cancel_turn(bridge.agent_id, bridge.conversation_id)


async def test_a_cancelled_run_that_never_reports_its_end_is_ended(
    bridge: Bridge, clock: Clock
) -> None:
    clock.stop()
    bridge.server.fail(CANCEL, 200, body="{}")
    rest = await bridge.reach(bridge.request("steps:2"), TextDelta)
    await bridge.runtime.cancel_turn(bridge.agent_id, bridge.conversation_id)
    clock.advance(CANCEL_GRACE - 0.1)
    await settled(rest)
    clock.advance(0.2)
    assert end_of(await rest).stop_reason is StopReason.CANCELLED


async def test_a_turn_cancelled_before_its_run_is_known_stays_cancelled(
    bridge: Bridge, clock: Clock
) -> None:
    bridge.server.silent = True
    request = bridge.request("steps:2")
    rest = asyncio.create_task(bridge.run(request))
    await eventually(lambda: bridge.server.prompts)
    await bridge.runtime.cancel_turn(bridge.agent_id, bridge.conversation_id)
    clock.advance(CANCEL_GRACE)
    with pytest.raises(RuntimeUnavailable):
        await rest
    bridge.server.silent = False
    assert end_of(await bridge.run(request)).stop_reason is StopReason.CANCELLED
    assert bridge.server.prompts == ["steps:2"]


async def test_without_a_key_none_is_taken_from_the_environment(
    server: FakeLettaApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LETTA_API_KEY", "sk-of-another-server")
    server.key = ""
    server.add_agent("Alpha")
    runtime = adapter(server)
    assert [agent.name for agent in await runtime.list_agents()] == ["Alpha"]
    await runtime.close()


async def test_a_cancelled_turn_is_cancelled_again_if_that_did_not_arrive(bridge: Bridge) -> None:
    request = bridge.request("steps:2")
    bridge.server.fail(CANCEL, 503)
    rest = await bridge.reach(request, TextDelta)
    with pytest.raises(RuntimeUnavailable):
        await bridge.runtime.cancel_turn(bridge.agent_id, bridge.conversation_id)
    rest.cancel()
    await asyncio.wait([rest])
    await bridge.crash()
    assert end_of(await within(bridge.run(request))).stop_reason is StopReason.CANCELLED
