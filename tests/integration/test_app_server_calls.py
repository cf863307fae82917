"""Our tools in the hands of a real App Server's agents."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest
from tests.integration.runtime_bench import Bench, Client, client_until, text_of
from tests.servers import keeper_in
from tests.stub_model import ModelRequest, StubModel
from tests.waiting import Clock, eventually, settled, within

from letta_matrix.common.tools import ToolCall, ToolResult, ToolSpec
from letta_matrix.runtimes.app_server.feeds import Feed, Mark
from letta_matrix.runtimes.app_server.frames import Scope
from letta_matrix.runtimes.faults import RuntimeUnavailable
from letta_matrix.runtimes.keeper.doors import LocalDoor
from letta_matrix.runtimes.keeper.secret import secret_at
from letta_matrix.runtimes.keeper.server import Keeper
from letta_matrix.runtimes.keeper.upstream import Upstream
from letta_matrix.runtimes.protocol import (
    ApprovalRequested,
    StopReason,
    ToolReturned,
    ToolStarted,
    TurnEvent,
    TurnFinished,
    TurnRequest,
)

TEXT = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
SPECS = [ToolSpec("matrix_note", "Takes a note.", TEXT)]


@dataclass
class Notes:
    """A tool's handler that says what it was told, and what is `held` when `go_on` is set;
    `calls` lists what came."""

    ok: bool = True
    held: frozenset[str] = frozenset()
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    calls: list[ToolCall] = field(default_factory=list[ToolCall])
    cancelled: int = 0

    async def __call__(self, call: ToolCall) -> ToolResult:
        self.calls.append(call)
        text = str(call.arguments.get("text"))
        try:
            if text in self.held:
                await self.go_on.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return ToolResult(f"noted {text}", self.ok)

    @property
    def texts(self) -> list[object]:
        return [call.arguments["text"] for call in self.calls]

    def offer(self) -> tuple[Sequence[ToolSpec], "Notes"]:
        return SPECS, self


TEA = frozenset({"tea"})


def first_connection(keeper: Keeper) -> aiohttp.ClientWebSocketResponse:
    connections: list[Upstream] = vars(keeper)["_connections"]
    return vars(connections[0])["_socket"]


def note(text: str, word: str = "tool", of: str = "matrix_note") -> str:
    return f"{word}:{of}:{json.dumps({'text': text})}"


def tools_in(events: list[TurnEvent]) -> list[TurnEvent]:
    return [event for event in events if isinstance(event, ToolStarted | ToolReturned)]


@pytest.fixture
def keeper_socket(tmp_path: Path) -> Generator[Path]:
    """No call of one test is taken up in another."""
    with keeper_in(tmp_path) as socket:
        yield socket


async def test_a_tool_runs_here_without_approval(bench: Bench) -> None:
    notes = Notes()
    await bench.restart(notes.offer())
    events = await bench.turn(bench.request(note("tea")))
    assert text_of(events) == "tool said: noted tea"
    assert not [event for event in events if isinstance(event, ApprovalRequested)]
    (call,) = notes.calls
    assert (call.agent_id, call.conversation_id) == (bench.agent_id, bench.conversation_id)
    assert tools_in(events) == [
        ToolStarted(call.call_id, "matrix_note", '{"text":"tea"}'),
        ToolReturned(call.call_id, True, "noted tea"),
    ]


async def test_two_calls_in_a_turn_that_fail_are_told_to_the_agent(bench: Bench) -> None:
    notes = Notes(ok=False)
    await bench.restart(notes.offer())
    events = await bench.turn(bench.request(note("tea", "tool2")))
    assert len({call.call_id for call in notes.calls}) == 2
    assert [type(event) for event in tools_in(events)] == [ToolStarted, ToolReturned] * 2
    assert [event.ok for event in events if isinstance(event, ToolReturned)] == [False] * 2
    assert text_of(events) == "tool said: noted tea"


async def test_a_long_call_stays_in_its_turn_and_holds_up_no_other(bench: Bench) -> None:
    """After ten seconds an App Server lets a turn go on without a call's result, unless it was
    told not to. A call that another client leaves unanswered shows when they are over."""
    notes = Notes(held=TEA)
    await bench.restart(notes.offer())
    other = await bench.runtime.create_conversation(bench.agent_id, "room !b")
    foreign = await bench.runtime.create_conversation(bench.agent_id, "theirs")
    tools = [{"tools": [{"name": "theirs", "description": "Waits.", "parameters": TEXT}]}]
    turn = asyncio.create_task(bench.turn(bench.request(note("tea"))))
    await eventually(lambda: notes.calls)
    async with Client(bench) as client:
        scope, mark = await client.begin(note("rum", of="theirs"), foreign, external_tools=tools)
        await client.approve(scope, mark)
        events = await bench.turn(bench.request(note("milk"), other))
        assert text_of(events) == "tool said: noted milk"
        assert not turn.done()
        assert "still running" in await client.end(scope, mark)
    assert not turn.done()
    notes.go_on.set()
    assert text_of(await turn) == "tool said: noted tea"
    assert notes.texts == ["tea", "milk"]


async def test_a_bridge_killed_while_a_tool_runs(bench: Bench, tmp_path: Path) -> None:
    await bench.runtime.close()
    request = bench.request(note("tea"))
    state = tmp_path / "state"
    written = await client_until(bench, request, state, b'"call"', tool="matrix_note")
    first = json.loads(written.splitlines()[-1])["call"]
    notes = Notes()
    await bench.restart(notes.offer())
    events = await bench.turn(request, json.loads(state.read_text()))
    assert text_of(events) == "tool said: noted tea"
    assert [call.call_id for call in notes.calls] == [first]
    again = Notes()
    await bench.restart(again.offer())
    assert text_of(await bench.turn(request, json.loads(state.read_text()))) == text_of(events)
    await bench.offered()
    await settled()
    assert again.calls == []


async def test_a_call_is_answered_though_nobody_follows_its_turn(
    bench: Bench, tmp_path: Path, clock: Clock
) -> None:
    await bench.runtime.close()
    request = bench.request(note("tea"))
    await client_until(bench, request, tmp_path / "state", b'"call"', tool="matrix_note")
    notes = Notes()
    await bench.restart(notes.offer())
    await eventually(lambda: notes.calls)
    assert await bench.say("next") == "echo: next"
    turn = asyncio.create_task(bench.turn(request))
    await bench.silence(clock, turn.done)
    assert text_of(await turn) == "tool said: noted tea"


async def test_tools_are_offered_again_on_a_new_connection(bench: Bench) -> None:
    notes = Notes()
    await bench.restart(notes.offer())
    assert await bench.say(note("tea")) == "tool said: noted tea"
    await bench.replace_keeper()
    await bench.offered()
    async with Client(bench) as other:
        assert await other.say(note("milk"), approve=True) == "tool said: noted milk"
    assert await bench.say(note("rum")) == "tool said: noted rum"
    assert notes.texts == ["tea", "milk", "rum"]


async def test_other_clients_turns_have_our_tools_where_we_ran_one(bench: Bench) -> None:
    notes = Notes()
    await bench.restart(notes.offer())
    await bench.say("hello")
    async with Client(bench) as other:
        assert await other.say(note("tea")) == "tool said: noted tea"
        foreign = await bench.runtime.create_conversation(bench.agent_id, "theirs")
        said = await other.say(note("milk"), foreign, approve=True)
    assert "noted" not in said
    assert len(notes.calls) == 1


async def test_cancelling_while_a_tool_runs(bench: Bench, clock: Clock) -> None:
    notes = Notes(held=TEA)
    await bench.restart(notes.offer())
    events = await cancelled(bench, notes, clock, bench.cancel)
    assert [event.ok for event in events if isinstance(event, ToolReturned)] == [False]
    assert await bench.say("next") == "echo: next"

    async def elsewhere() -> None:
        async with Client(bench) as other:
            scope = {"agent_id": bench.agent_id, "conversation_id": bench.conversation_id}
            assert (await other.ask("abort_message", runtime=scope))["aborted"]

    await cancelled(bench, notes, clock, elsewhere)


async def cancelled(
    bench: Bench, notes: Notes, clock: Clock, cancel: Callable[[], Awaitable[None]]
) -> list[TurnEvent]:
    """A turn that is cancelled while its tool runs, with no wait for anything."""
    before = len(notes.calls)
    turn = asyncio.create_task(bench.turn(bench.request(note("tea"))))
    await eventually(lambda: len(notes.calls) > before)
    clock.stop()
    await within(cancel())
    events = await within(turn)
    await eventually(lambda: notes.cancelled == len(notes.calls))
    clock.go()
    assert isinstance(events[-1], TurnFinished)
    assert events[-1].stop_reason is StopReason.CANCELLED
    return events


@pytest.mark.parametrize("over", [False, True])
async def test_tools_on_a_remote_app_server_survive_one_connection(
    bench: Bench,
    stub_model: StubModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    clock: Clock,
    over: bool,
) -> None:
    """Addresses of other machines get a second connection; here this one's gets it. A turn keeps
    the tools of the connection it began on: the agent is told of those that fail with it.

    When the turn is followed again it may be `over`, or between two of its runs: the model is
    asked what to do after the first call, and has not answered.
    """
    monkeypatch.setattr("letta_matrix.runtimes.keeper.server.is_remote", bool)
    bench.socket = tmp_path / "two.sock"
    keeper = Keeper(1_000_000, lambda _: None, lambda: None)
    door = LocalDoor(keeper, secret_at(bench.socket))
    server = await asyncio.start_unix_server(door.serve, bench.socket)
    try:
        notes = Notes(held=TEA)
        await bench.restart(notes.offer())
        await eventually(lambda: bench.connection.link.made == 2)
        request = bench.request(f"steps:2 {note('tea', 'tool2')}")
        turn = asyncio.create_task(bench.turn(request))
        await eventually(lambda: notes.calls)
        scope = Scope(request.agent_id, request.conversation_id)
        with bench.connection.feeds.subscribe(scope) as feed:
            clock.stop()
            await first_connection(keeper).close()
            with pytest.raises(RuntimeUnavailable):
                await within(turn)
            await eventually(lambda: any(one.results == 1 for one in asked(stub_model, request)))
            if over:
                stub_model.steps.finish(request.text)
                await frames_until(feed, "turn_finished")
                clock.go()
            turn = asyncio.create_task(bench.turn(request, bench.saved.state))
            if not over:
                await frames_until(feed, "runtime_start_response", "update_loop_status")
                stub_model.steps.finish(request.text)
            events = await within(turn)
            clock.go()
        assert isinstance(events[-1], TurnFinished)
        assert events[-1].stop_reason is StopReason.END_TURN
        assert "not connected" in text_of(events)
        assert not any(event.ok for event in events if isinstance(event, ToolReturned))
        assert await bench.say(note("milk")) == "tool said: noted milk"
        assert notes.texts == ["tea", "milk"]
    finally:
        await bench.runtime.close()
        server.close()
        await keeper.close()


def asked(model: StubModel, request: TurnRequest) -> list[ModelRequest]:
    return [one for one in model.requests if one.text == request.text]


async def frames_until(feed: Feed, *kinds: str) -> None:
    """Take frames until one of each kind has come, in this order."""
    for kind in kinds:
        while True:
            await eventually(lambda: not feed.empty())
            frame = feed.get_nowait()
            if not isinstance(frame, Mark) and frame.type == kind:
                break
