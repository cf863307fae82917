"""Turns that were left in their midst, by what an App Server reports of them."""

import asyncio
import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from tests.fake_app_server import FakeAppServer
from tests.waiting import Clock, eventually, within

from letta_matrix.config import AppServerRuntime
from letta_matrix.runtimes.app_server import AppServer
from letta_matrix.runtimes.keeper.server import Keeper
from letta_matrix.runtimes.protocol import (
    StopReason,
    TextDelta,
    TurnEvent,
    TurnFinished,
    TurnLost,
    TurnRequest,
    TurnState,
)

Json = dict[str, Any]
REQUEST = TurnRequest("a1", "c1", "$1", "hello")
SCOPE = {"agent_id": "a1", "conversation_id": "c1"}
EARLIER: TurnState = {"epoch": "an earlier keeper's", "generation": 0, "seq": 7}
STORED = [
    {"id": "m4", "message_type": "assistant_message", "content": "and so on"},
    {"id": "m3", "message_type": "tool_return_message"},
    {"id": "m2", "message_type": "tool_call_message"},
    {"id": "m1", "message_type": "user_message", "content": "hello", "otid": "$1"},
]
"""Newest first, as they are listed: a turn that has used a tool."""


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
    keeper = Keeper(100_000, lambda _: None, lambda: None)
    server = await asyncio.start_unix_server(keeper.serve, tmp_path / "k")
    adapter = AppServer(AppServerRuntime.model_validate({"url": upstream.url}), tmp_path / "k")
    await adapter.start()
    await eventually(lambda: vars(adapter)["_connection"].link.up)
    yield adapter
    await adapter.close()
    server.close()
    await keeper.close()


def reporting(upstream: FakeAppServer, *frames: Json) -> None:
    """Let the App Server report these frames once somebody subscribes to the conversation."""
    answers: dict[str, Json] = {
        "conversation_messages_list": {"messages": STORED},
        "conversation_fork": {"conversation": {"id": "c2"}},
    }

    def respond(frame: Json) -> list[Json]:
        head = {"type": f"{frame['type']}_response", "request_id": frame["request_id"]}
        answer = {**head, "success": True, **answers.get(frame["type"], {}), "runtime": SCOPE}
        told = frames if frame["type"] == "runtime_start" else ()
        return [answer, *({**one, "runtime": SCOPE} for one in told)]

    upstream.respond = respond


async def followed(runtime: AppServer) -> list[TurnEvent]:
    async def save(_: TurnState) -> None:
        pass

    return [event async for event in runtime.run_turn(REQUEST, EARLIER, save)]


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
