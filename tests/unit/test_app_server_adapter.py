"""The App Server adapter against answers that a real App Server seldom gives."""

import asyncio
import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from tests.fake_app_server import FakeAppServer, adapter_at
from tests.waiting import Clock, eventually, settled

from letta_matrix.common.tools import ToolCall, ToolResult, ToolSpec
from letta_matrix.runtimes.app_server import AppServer
from letta_matrix.runtimes.app_server.adapter import RECOVERY_GRACE
from letta_matrix.runtimes.faults import (
    AgentGone,
    ConversationGone,
    CredentialsRefused,
    RuntimeBusy,
    RuntimeRefused,
    RuntimeUnavailable,
    TurnLost,
)
from letta_matrix.runtimes.protocol import (
    ABORT_GRACE,
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
SCOPE = {"agent_id": "a1", "conversation_id": "c1"}


EMPTY: dict[str, Json] = {
    "agent_list": {"agents": []},
    "conversation_list": {"conversations": []},
}


class Script:
    """Answers by frame type; `asked` lists what came."""

    def __init__(self, **answers: Json | list[Json]) -> None:
        self.answers = answers
        self.asked: list[Json] = []

    def __call__(self, frame: Json) -> list[Json]:
        self.asked.append(frame)
        answer = self.answers.get(frame["type"], EMPTY.get(frame["type"]))
        if isinstance(answer, list):
            answer = answer.pop(0) if len(answer) > 1 else answer[0]
        if answer is None:
            return []
        kind = "input_accepted" if frame["type"] == "input" else f"{frame['type']}_response"
        followed: list[Json] = answer.get("then", [])
        head = {"type": kind, "request_id": frame["request_id"], "success": True, **answer}
        return [head | {"runtime": SCOPE}, *[{**f, "runtime": SCOPE} for f in followed]]

    def kinds(self) -> list[str]:
        return [frame["type"] for frame in self.asked]


@pytest.fixture
async def upstream() -> AsyncGenerator[FakeAppServer]:
    async with FakeAppServer() as server:
        yield server


@pytest.fixture
async def runtime(
    tmp_path: Path, upstream: FakeAppServer, clock: Clock
) -> AsyncGenerator[AppServer]:
    """A connected adapter; time stands still unless the test lets it pass."""
    async with adapter_at(upstream, tmp_path / "k") as adapter:
        await adapter.start()
        await eventually(lambda: adapter._connection.link.up)
        clock.stop()
        yield adapter
        clock.go()


async def reconnected(runtime: AppServer, upstream: FakeAppServer, clock: Clock) -> None:
    """Break the connection, and let the keeper make it again."""
    connection = runtime._connection
    before = connection.link.generation
    await upstream.drop()
    await clock.until(lambda: connection.link.generation > before, step=0.1)


async def refused(runtime: AppServer, upstream: FakeAppServer, clock: Clock) -> str:
    """Let the server want another token from now on; what that means for a listing."""
    upstream.token = "new"
    await upstream.drop()
    await clock.until(lambda: runtime._connection.link.refused, step=0.1)
    with pytest.raises(CredentialsRefused) as caught:
        await runtime.list_agents()
    return str(caught.value)


async def nothing(_: TurnState) -> None:
    pass


async def turn(
    runtime: AppServer, request: TurnRequest = REQUEST, state: TurnState | None = None
) -> list[TurnEvent]:
    return [event async for event in runtime.run_turn(request, state, nothing)]


def delta(text: str, seq: int) -> Json:
    message = {"message_type": "assistant_message", "id": "m", "content": text}
    return {"type": "stream_delta", "delta": {**message, "run_id": "r1", "seq_id": seq}}


END: Json = {"type": "turn_finished", "run_id": "r1", "stop_reason": "end_turn"}
STARTED: Json = {"accepted": True, "disposition": "started", "then": [delta("hi", 1), END]}


async def test_no_answer_is_waited_for_no_longer_than_said(
    runtime: AppServer, upstream: FakeAppServer, clock: Clock
) -> None:
    listing = asyncio.create_task(runtime.list_agents())
    await upstream.heard(1)
    clock.advance(29)
    await settled(listing)
    clock.advance(2)
    with pytest.raises(RuntimeUnavailable, match="did not answer agent_list within 30 s"):
        await listing


async def test_a_listing_is_whole_or_nothing(runtime: AppServer, upstream: FakeAppServer) -> None:
    page = [{"id": f"a{n}", "name": f"N{n}"} for n in range(100)]
    rest = [page[-1], {"id": "last", "name": None}]
    upstream.respond = script = Script(agent_list=[{"agents": page}, {"agents": rest}])
    agents = await runtime.list_agents()
    assert len(agents) == 101
    assert agents[-1].name == "last"
    assert [frame["query"] for frame in script.asked if frame["type"] == "agent_list"] == [
        {"limit": 100},
        {"limit": 100, "after": "a99"},
    ]
    upstream.respond = Script(agent_list=[{"agents": page}, {"success": False, "error": "no"}])
    with pytest.raises(RuntimeRefused, match="refused agent_list: no"):
        await runtime.list_agents()


async def test_everything_fails_at_once_while_it_is_down(
    runtime: AppServer, upstream: FakeAppServer
) -> None:
    await upstream.__aexit__()
    await eventually(lambda: not runtime._connection.link.up)
    with pytest.raises(RuntimeUnavailable, match="cannot be reached"):
        await runtime.list_agents()
    with pytest.raises(RuntimeUnavailable):
        await turn(runtime)


async def test_a_connection_that_breaks_fails_what_waits(
    runtime: AppServer, upstream: FakeAppServer
) -> None:
    upstream.respond = Script(runtime_start={}, input={"accepted": True, "disposition": "queued"})
    waiting = asyncio.create_task(turn(runtime))
    await upstream.heard(2)
    await upstream.drop()
    with pytest.raises(RuntimeUnavailable):
        await waiting


async def test_the_permission_mode_is_always_named(
    runtime: AppServer, upstream: FakeAppServer, clock: Clock
) -> None:
    upstream.respond = script = Script(runtime_start={}, input=STARTED)
    await turn(runtime)
    await turn(runtime, TurnRequest("a1", "c1", "$2", "again"))
    assert script.kinds() == ["runtime_start", "input", "input"]
    assert script.asked[0]["mode"] == "strict"
    await reconnected(runtime, upstream, clock)
    await turn(runtime, TurnRequest("a1", "c1", "$3", "once more"))
    assert script.kinds()[3:] == ["runtime_start", "input"]


async def test_a_rejected_input_is_sent_again(
    runtime: AppServer, upstream: FakeAppServer, clock: Clock
) -> None:
    answers = [{"accepted": False}, STARTED]
    upstream.respond = script = Script(runtime_start={}, input=answers)
    events = await clock.through(turn(runtime))
    assert events[-1] == TurnFinished(StopReason.END_TURN, "", "r1")
    assert script.kinds().count("input") == 2
    upstream.respond = Script(runtime_start={}, input={"accepted": False, "error": "full"})
    with pytest.raises(RuntimeRefused, match="took no message: full"):
        await clock.through(turn(runtime, TurnRequest("a1", "c1", "$2", "x")))


async def test_a_wedged_conversation_is_forked(runtime: AppServer, upstream: FakeAppServer) -> None:
    error = "Conversation c1 already has an active run (r0)"
    end = {"type": "turn_finished", "stop_reason": "error", "error": error}
    upstream.respond = script = Script(
        runtime_start={},
        input={"accepted": True, "disposition": "started", "then": [end]},
        conversation_messages_list={"messages": []},
        conversation_fork={"conversation": {"id": "c2"}},
    )
    with pytest.raises(TurnLost) as lost:
        await turn(runtime)
    assert lost.value.fresh_conversation == "c2"
    assert not lost.value.tools_started
    assert script.asked[-1]["body"] == {"agent_id": "a1"}


async def test_what_a_listing_holds_besides_agents_is_passed_over(
    runtime: AppServer, upstream: FakeAppServer
) -> None:
    odd = [{"id": "a1"}, {"name": "no id"}, "text", {"id": 5}, {"id": "a2", "name": "Two"}]
    upstream.respond = Script(agent_list={"agents": odd})
    assert [agent.name for agent in await runtime.list_agents()] == ["a1", "Two"]
    assert dict(runtime.counters) == {"malformed agent_list": 3}


@pytest.mark.parametrize("answer", [{}, {"agents": None}, {"agents": {"a1": {}}}])
async def test_a_listing_without_a_list_is_no_empty_one(
    runtime: AppServer, upstream: FakeAppServer, answer: Json
) -> None:
    upstream.respond = Script(agent_list=answer)
    with pytest.raises(RuntimeUnavailable, match="answered agent_list without `agents`"):
        await runtime.list_agents()


@pytest.mark.parametrize("made", [{}, {"agent": {}, "conversation": None}])
async def test_something_made_has_an_id(
    runtime: AppServer, upstream: FakeAppServer, made: Json
) -> None:
    upstream.respond = Script(agent_create=made, conversation_create=made)
    with pytest.raises(RuntimeUnavailable, match="without `agent`"):
        await runtime.create_agent("Ada", model="a/b")
    with pytest.raises(RuntimeUnavailable, match="without `conversation`"):
        await runtime.create_conversation("a1", "room")


async def begun_and_left(runtime: AppServer, script: Script) -> None:
    """Begin a turn that says nothing more, and stop following it, as after a timeout."""
    script.answers |= {"runtime_start": {}, "resume_queue": {}}
    script.answers["input"] = {**STARTED, "then": [delta("hi", 1)]}
    events = runtime.run_turn(REQUEST, None, nothing)
    async for event in events:
        if isinstance(event, TextDelta):
            break
    await events.aclose()


async def test_an_abort_that_never_settles_forks_the_conversation(
    runtime: AppServer, upstream: FakeAppServer, clock: Clock
) -> None:
    upstream.respond = script = Script(
        abort_message={"aborted": True},
        conversation_messages_list={"messages": []},
        conversation_fork={"conversation": {"id": "c2"}},
    )
    await begun_and_left(runtime, script)
    cancelling = asyncio.create_task(runtime.cancel_turn("a1", "c1"))
    await eventually(lambda: "resume_queue" in script.kinds())
    await settled(cancelling)
    clock.advance(ABORT_GRACE - 0.1)
    await settled(cancelling)
    clock.advance(0.2)
    await cancelling
    with pytest.raises(TurnLost, match="stuck in a turn that was cancelled") as lost:
        await turn(runtime, TurnRequest("a1", "c1", "$2", "next"))
    assert lost.value.fresh_conversation == "c2"
    script.answers["input"] = STARTED
    await upstream.say({**END, "runtime": SCOPE})
    await runtime.list_agents()  # whose answer comes after what was said
    assert await turn(runtime, TurnRequest("a1", "c1", "$3", "settled after all"))


async def test_a_new_connection_settles_what_was_cancelled(
    runtime: AppServer, upstream: FakeAppServer, clock: Clock
) -> None:
    upstream.respond = script = Script(abort_message={"aborted": True})
    await begun_and_left(runtime, script)
    await clock.through(runtime.cancel_turn("a1", "c1"))
    await reconnected(runtime, upstream, clock)
    script.answers["input"] = STARTED
    assert await clock.through(turn(runtime, TurnRequest("a1", "c1", "$2", "next")))


@pytest.mark.parametrize("abort", [{"aborted": True, "then": [END]}, {"aborted": False}])
async def test_a_turn_goes_on_after_an_abort_that_settles(
    runtime: AppServer, upstream: FakeAppServer, abort: Json
) -> None:
    upstream.respond = script = Script(abort_message=abort)
    await begun_and_left(runtime, script)
    await runtime.cancel_turn("a1", "c1")
    script.answers["input"] = STARTED
    assert await turn(runtime, TurnRequest("a1", "c1", "$2", "next"))


async def test_a_conversation_that_goes_in_mid_life_is_told(
    runtime: AppServer, upstream: FakeAppServer
) -> None:
    end = {"type": "turn_finished", "stop_reason": "error", "error": "Conversation c1 not found"}
    taken = {"accepted": True, "disposition": "started", "then": [end]}
    upstream.respond = Script(runtime_start={}, input=taken)
    with pytest.raises(ConversationGone, match="Conversation c1 not found"):
        await turn(runtime)


async def test_unknown_frames_are_counted(runtime: AppServer, upstream: FakeAppServer) -> None:
    news = {"type": "news"}
    then = {**STARTED, "then": [news, delta("hi", 1), END]}
    upstream.respond = Script(runtime_start={}, input=then)
    await upstream.say("not json", '{"type":"weather"}')
    events = await turn(runtime)
    assert [event.text for event in events if isinstance(event, TextDelta)] == ["hi"]
    assert dict(runtime.counters) == {"not json": 1, "unasked": 1, "unknown news": 1}


async def test_frames_are_given_up_when_no_turn_needs_them(
    runtime: AppServer, upstream: FakeAppServer, clock: Clock
) -> None:
    clock.advance(RECOVERY_GRACE)
    saved: list[Json] = []

    async def save(state: TurnState) -> None:
        saved.append(json.loads(json.dumps(dict(state))))

    upstream.respond = Script(runtime_start={}, input=STARTED)
    other = TurnRequest("a1", "c1", "$2", "again")
    assert [event async for event in runtime.run_turn(REQUEST, None, save)]
    assert [event async for event in runtime.run_turn(other, None, save)]
    await runtime.finish_turn(other)
    again = await turn(runtime, REQUEST, saved[0])
    assert [event.text for event in again if isinstance(event, TextDelta)] == ["hi"]
    await runtime.finish_turn(REQUEST)
    upstream.respond = Script(
        runtime_start={},
        conversation_messages_list={"messages": []},
        input={**STARTED, "then": [delta("asked anew", 1), END]},
    )
    anew = await clock.through(turn(runtime, REQUEST, saved[0]))
    assert [event.text for event in anew if isinstance(event, TextDelta)] == ["asked anew"]


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        ("Input was rejected by the queue", RuntimeBusy),
        ("Conversation is switching computers", RuntimeBusy),
        ("Agent a1 not found", AgentGone),
        ("Agent agent-local-default not found", ConversationGone),
        ("something else", RuntimeRefused),
        (["no", "text"], RuntimeRefused),
    ],
)
async def test_why_a_message_was_not_taken(
    runtime: AppServer,
    upstream: FakeAppServer,
    clock: Clock,
    error: object,
    fault: type[Exception],
) -> None:
    upstream.respond = Script(runtime_start={}, input={"accepted": False, "error": error})
    with pytest.raises(fault, match="took no message") as caught:
        await clock.through(turn(runtime))
    assert type(caught.value) is fault


async def test_a_refused_token_is_the_operators_business(
    runtime: AppServer, upstream: FakeAppServer, clock: Clock
) -> None:
    assert "check the runtime's `token`" in await refused(runtime, upstream, clock)
    with pytest.raises(CredentialsRefused):
        await turn(runtime)
    with pytest.raises(RuntimeUnavailable, match="check the runtime's `token`"):
        await turn(runtime, state={"life": "e", "generation": 1, "seq": 0})


async def test_an_approval_is_still_pending_when_a_token_is_refused(
    runtime: AppServer, upstream: FakeAppServer, clock: Clock
) -> None:
    await refused(runtime, upstream, clock)
    with pytest.raises(RuntimeUnavailable, match="check the runtime's `token`"):
        await runtime.answer_approval(REQUEST, "perm-1", allow=True)


@pytest.mark.parametrize(
    ("state", "fault"),
    [(None, ConversationGone), ({"life": "e", "generation": 1, "seq": 0}, TurnLost)],
)
async def test_a_conversation_deleted_meanwhile_may_have_had_the_turn(
    runtime: AppServer, upstream: FakeAppServer, state: TurnState | None, fault: type[Exception]
) -> None:
    gone = {"success": False, "error": "Conversation c1 not found"}
    upstream.respond = Script(runtime_start=gone, conversation_messages_list=gone)
    with pytest.raises(fault, match="Conversation c1 not found") as caught:
        await turn(runtime, state=state)
    assert not isinstance(caught.value, TurnLost) or caught.value.tools_started


async def test_closing_waits_for_what_it_ends(runtime: AppServer) -> None:
    began, may_end, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def work() -> None:
        try:
            began.set()
            await asyncio.Event().wait()
        finally:
            await may_end.wait()
            ended.set()

    runtime._connection._background(work)
    await began.wait()
    closing = asyncio.create_task(runtime.close())
    await settled(closing)
    may_end.set()
    await closing
    assert ended.is_set()


NONSENSE: list[Json] = [
    {"type": 5},
    {"type": "stream_delta", "delta": "text"},
    {"type": "stream_delta", "delta": {"message_type": ["x"], "run_id": {}, "seq_id": "1"}},
    {"type": "stream_delta", "delta": {"message_type": "assistant_message", "content": 5}},
    {"type": "stream_delta", "delta": {"message_type": "tool_return_message", "tool_call_id": []}},
    {
        "type": "stream_delta",
        "delta": {"message_type": "approval_request_message", "tool_calls": 1},
    },
    {"type": "update_loop_status", "loop_status": {"active_run_ids": 7, "status": None}},
    {"type": "update_loop_status", "loop_status": {"client_message_ids_by_run_id": {"r": 1}}},
    {"type": "update_queue", "queue": {}, "removed": [None, 3, {"client_message_id": []}]},
    {"type": "control_request", "request_id": [], "request": {"tool_name": {}, "input": []}},
    {"type": "control_request", "request_id": {}, "request": "x"},
    {"type": "external_tool_call_request", "request_id": [1], "tool_name": {}},
    {"type": "input_accepted", "request_id": {"a": 1}, "accepted": "no"},
    {"type": "turn_finished", "run_id": "other", "stop_reason": {}},
    {"type": "agent_list_response", "request_id": ["x"]},
]


async def test_nonsense_kills_no_feed(runtime: AppServer, upstream: FakeAppServer) -> None:
    async def handler(_: ToolCall) -> ToolResult:
        return ToolResult("")

    runtime.offer_tools([ToolSpec("note", "Takes a note.", {"type": "object"})], handler)
    others = {
        "type": "update_loop_status",
        "loop_status": {
            "status": "PROCESSING_API_RESPONSE",
            "active_run_ids": ["r1"],
            "client_message_ids_by_run_id": {"r1": ["$1"], "other": ["$0"]},
        },
    }
    then = [others, *NONSENSE, delta("hi", 1), END]
    started = {"accepted": True, "disposition": "started", "then": then}
    upstream.respond = Script(runtime_start={}, input=started)
    for odd in ("[]", "5", "null", "[" * 50_000, '{"type":"x","runtime":[]}', '{"runtime":{}}'):
        await upstream.say(odd)
    events = await turn(runtime)
    assert [event.text for event in events if isinstance(event, TextDelta)][-1] == "hi"
    assert events[-1] == TurnFinished(StopReason.END_TURN, "", "r1")
    assert not [event for event in events if isinstance(event, ApprovalRequested) and event.always]


async def test_half_a_surrogate_pair_is_text_that_can_be_stored(
    runtime: AppServer, upstream: FakeAppServer
) -> None:
    then = [delta("a\ud83d", 1), delta("\U0001f600", 2), END]
    started = {"accepted": True, "disposition": "started", "then": then}
    upstream.respond = Script(runtime_start={}, input=started)
    events = await turn(runtime)
    text = "".join(event.text for event in events if isinstance(event, TextDelta))
    assert text == "a\ufffd\U0001f600"


async def test_a_call_on_the_spare_connection_is_answered(
    tmp_path: Path, upstream: FakeAppServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("letta_matrix.runtimes.keeper.server.is_remote", bool)
    answers: list[Json] = []

    def respond(frame: Json) -> list[Json]:
        if frame["type"] == "external_tool_call_response":
            answers.append(frame)
        return Script(runtime_start={}, input=STARTED, runtime_external_tools_update={})(frame)

    async def handler(call: ToolCall) -> ToolResult:
        return ToolResult(call.call_id)

    upstream.respond = respond
    async with adapter_at(upstream, tmp_path / "k") as adapter:
        adapter.offer_tools([ToolSpec("note", "Takes a note.", {"type": "object"})], handler)
        await adapter.start()
        await eventually(lambda: adapter._connection.link.made == 2)
        await turn(adapter)
        heard = await eventually(lambda: starts(upstream), lambda found: len(found) == 2)
        assert [start["external_tools"][0]["tools"][0]["name"] for start in heard] == ["note"] * 2
        for socket in upstream.sockets:
            request = {"request_id": f"r{id(socket)}", "tool_call_id": "call", "tool_name": "note"}
            kind = {"type": "external_tool_call_request", **request}
            await socket.send_str(json.dumps({**kind, "runtime": SCOPE}, separators=(",", ":")))
        await eventually(lambda: len({answer["request_id"] for answer in answers}) == 2)
        upstream.received.clear()
        await upstream.sockets[0].close()
        await eventually(lambda: "runtime_external_tools_update" in "".join(upstream.received))


def starts(upstream: FakeAppServer) -> list[Json]:
    return [json.loads(text) for text in upstream.received if '"runtime_start"' in text]
