"""Our tools in the hands of a real App Server's agents."""

import asyncio
import json
import os
import secrets
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest
from tests.integration.runtime_bench import Bench, Client, client_until, connected, text_of

from letta_matrix.runtimes.keeper.server import Keeper
from letta_matrix.runtimes.keeper.upstream import Upstream
from letta_matrix.runtimes.protocol import (
    ApprovalRequested,
    RuntimeUnavailable,
    StopReason,
    ToolCall,
    ToolResult,
    ToolReturned,
    ToolSpec,
    ToolStarted,
    TurnEvent,
    TurnFinished,
)

TEXT = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
SPECS = [ToolSpec("matrix_note", "Takes a note.", TEXT)]


@dataclass
class Notes:
    """A tool's handler that says what it was told; `calls` lists what came."""

    ok: bool = True
    wait: float = 0
    calls: list[ToolCall] = field(default_factory=list[ToolCall])
    cancelled: int = 0
    called: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, call: ToolCall) -> ToolResult:
        self.calls.append(call)
        self.called.set()
        try:
            await asyncio.sleep(self.wait)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return ToolResult(f"noted {call.arguments.get('text')}", self.ok)

    def offer(self) -> tuple[Sequence[ToolSpec], "Notes"]:
        return SPECS, self


def first_connection(keeper: Keeper) -> aiohttp.ClientWebSocketResponse:
    connections: list[Upstream] = vars(keeper)["_connections"]
    return vars(connections[0])["_socket"]


def note(text: str, word: str = "tool") -> str:
    return f"{word}:matrix_note:{json.dumps({'text': text})}"


def tools_in(events: list[TurnEvent]) -> list[TurnEvent]:
    return [event for event in events if isinstance(event, ToolStarted | ToolReturned)]


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


async def test_a_tool_that_fails_is_told_to_the_agent(bench: Bench) -> None:
    await bench.restart(Notes(ok=False).offer())
    events = await bench.turn(bench.request(note("tea")))
    assert text_of(events) == "tool said: noted tea"
    assert [event.ok for event in events if isinstance(event, ToolReturned)] == [False]


async def test_two_calls_in_a_turn(bench: Bench) -> None:
    notes = Notes()
    await bench.restart(notes.offer())
    events = await bench.turn(bench.request(note("tea", "tool2")))
    assert len({call.call_id for call in notes.calls}) == 2
    assert [type(event) for event in tools_in(events)] == [ToolStarted, ToolReturned] * 2
    assert text_of(events) == "tool said: noted tea"


async def test_a_slow_tool_holds_up_no_other_conversation(bench: Bench) -> None:
    notes = Notes(wait=2)
    await bench.restart(notes.offer())
    other = await bench.runtime.create_conversation(bench.agent_id, "room !b")
    await bench.turn(bench.request("warm", other))
    slow = asyncio.create_task(bench.turn(bench.request(note("tea"))))
    await asyncio.wait_for(notes.called.wait(), 20)
    began = time.monotonic()
    again = asyncio.create_task(bench.turn(bench.request(note("milk"), other)))
    assert text_of(await again) == "tool said: noted milk"
    assert text_of(await slow) == "tool said: noted tea"
    assert time.monotonic() - began < 3.9


async def test_a_call_longer_than_ten_seconds_stays_in_its_turn(bench: Bench) -> None:
    await bench.restart(Notes(wait=11).offer())
    assert text_of(await bench.turn(bench.request(note("tea")))) == "tool said: noted tea"


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
    await asyncio.sleep(0.3)
    assert again.calls == []


async def test_a_call_is_answered_though_nobody_follows_its_turn(
    bench: Bench, tmp_path: Path
) -> None:
    await bench.runtime.close()
    request = bench.request(note("tea"))
    await client_until(bench, request, tmp_path / "state", b'"call"', tool="matrix_note")
    notes = Notes()
    await bench.restart(notes.offer())
    await asyncio.wait_for(notes.called.wait(), 5)
    assert await bench.say("next") == "echo: next"
    assert text_of(await bench.turn(request)) == "tool said: noted tea"


async def test_tools_are_offered_again_on_a_new_connection(bench: Bench) -> None:
    notes = Notes()
    await bench.restart(notes.offer())
    assert await bench.say(note("tea")) == "tool said: noted tea"
    os.kill(bench.keeper_pid(), signal.SIGKILL)
    await asyncio.sleep(0.5)
    await connected(bench.runtime)
    async with Client(bench) as other:
        assert await other.say(note("milk"), approve=True) == "tool said: noted milk"
    assert await bench.say(note("rum")) == "tool said: noted rum"
    assert [call.arguments["text"] for call in notes.calls] == ["tea", "milk", "rum"]


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


async def test_cancelling_while_a_tool_runs(bench: Bench) -> None:
    notes = Notes(wait=60)
    await bench.restart(notes.offer())
    turn = asyncio.create_task(bench.turn(bench.request(note(secrets.token_hex(3)))))
    await asyncio.wait_for(notes.called.wait(), 20)
    began = time.monotonic()
    await bench.runtime.cancel_turn(bench.agent_id, bench.conversation_id)
    events = await turn
    assert time.monotonic() - began < 1.5
    assert isinstance(events[-1], TurnFinished)
    assert events[-1].stop_reason is StopReason.CANCELLED
    assert [event.ok for event in events if isinstance(event, ToolReturned)] == [False]
    await asyncio.sleep(0.1)
    assert notes.cancelled == 1
    assert await bench.say("next") == "echo: next"


async def test_tools_on_a_remote_app_server_survive_one_connection(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Addresses of other machines get a second connection; here this one's gets it. A turn keeps
    the tools of the connection it began on: the agent is told of those that fail with it."""
    for module in ("keeper.server", "app_server.connection"):
        monkeypatch.setattr(f"letta_matrix.runtimes.{module}.is_remote", bool)
    keeper = Keeper(1_000_000, lambda _: None, lambda: None)
    bench.socket = tmp_path / "two.sock"
    server = await asyncio.start_unix_server(keeper.serve, bench.socket)
    try:
        notes = Notes(wait=30)
        await bench.restart(notes.offer())
        await asyncio.sleep(0.5)
        request = bench.request(note("tea", "tool2"))
        turn = asyncio.create_task(bench.turn(request))
        await asyncio.wait_for(notes.called.wait(), 20)
        await first_connection(keeper).close()
        with pytest.raises(RuntimeUnavailable):
            await turn
        events = await bench.turn(request, bench.saved.state)
        assert isinstance(events[-1], TurnFinished)
        assert "not connected" in text_of(events)
        assert not any(event.ok for event in events if isinstance(event, ToolReturned))
        notes.wait = 0
        assert await bench.say(note("milk")) == "tool said: noted milk"
        assert [call.arguments["text"] for call in notes.calls] == ["tea", "milk"]
    finally:
        await bench.runtime.close()
        server.close()
        await keeper.close()


async def test_somebody_else_cancels_while_a_tool_runs(bench: Bench) -> None:
    notes = Notes(wait=60)
    await bench.restart(notes.offer())
    turn = asyncio.create_task(bench.turn(bench.request(note("tea"))))
    await asyncio.wait_for(notes.called.wait(), 20)
    async with Client(bench) as other:
        scope = {"agent_id": bench.agent_id, "conversation_id": bench.conversation_id}
        assert (await other.ask("abort_message", runtime=scope))["aborted"]
        events = await asyncio.wait_for(turn, 3)
    assert isinstance(events[-1], TurnFinished)
    assert events[-1].stop_reason is StopReason.CANCELLED
    assert notes.cancelled == 1
