"""Calls of our tools by agents: how they are offered, run, answered and taken up again."""

import asyncio
from collections import Counter
from typing import Any

import pytest
from structlog.testing import capture_logs
from tests.waiting import settled

from letta_matrix.common.tools import ToolCall, ToolResult, ToolSpec
from letta_matrix.runtimes.app_server.external_tools import ExternalTools
from letta_matrix.runtimes.app_server.frames import Scope

Json = dict[str, Any]
SCOPE = {"agent_id": "a1", "conversation_id": "c1"}


def call(number: int = 1, **fields: object) -> Json:
    return {
        "type": "external_tool_call_request",
        "request_id": f"r{number}",
        "runtime": SCOPE,
        "tool_call_id": f"call{number}",
        "tool_name": "note",
        "input": {"text": "tea"},
        **fields,
    }


def ended(number: int = 1) -> Json:
    delta = {"message_type": "client_tool_end", "tool_call_id": f"call{number}"}
    return {"type": "stream_delta", "runtime": SCOPE, "delta": delta}


def asked(tool: str = "note") -> Json:
    request = {"subtype": "can_use_tool", "tool_name": tool, "tool_call_id": "call1"}
    return {"type": "control_request", "request_id": "perm", "request": request, **SCOPE}


class Bridge:
    """Tools whose frames go nowhere; `sent` lists them, `up` False refuses them."""

    def __init__(self, *, hold: bool = False) -> None:
        self.up = True
        self.sent: list[Json] = []
        self.calls: list[ToolCall] = []
        self.counters: Counter[str] = Counter()
        self.go = asyncio.Event()
        if not hold:
            self.go.set()
        self.tools = ExternalTools(self.send, self.counters)
        self.tools.offer([ToolSpec("note", "Takes a note.", {"type": "object"})], self.handle)

    def send(self, frame: Json) -> bool:
        if self.up:
            self.sent.append(frame)
        return self.up

    async def handle(self, call: ToolCall) -> ToolResult:
        self.calls.append(call)
        await self.go.wait()
        if call.arguments.get("text") == "bad":
            raise ValueError("secret")
        return ToolResult("noted")


async def test_a_call_is_run_and_answered() -> None:
    bridge = Bridge()
    bridge.tools.read(7, call())
    assert bridge.tools.oldest == 7
    await settled()
    assert bridge.calls == [ToolCall("a1", "c1", "call1", "note", {"text": "tea"}, "r1")]
    content = [{"type": "text", "text": "noted"}]
    assert bridge.sent == [
        {
            "type": "external_tool_call_response",
            "request_id": "r1",
            "result": {"content": content, "is_error": False},
        }
    ]
    assert bridge.tools.oldest is None


async def test_a_frame_read_twice_is_one_call() -> None:
    bridge = Bridge(hold=True)
    bridge.tools.read(1, call())
    bridge.tools.recover([(1, call())])
    await settled()
    bridge.go.set()
    await settled()
    bridge.tools.recover([(1, call())])
    await settled()
    assert len(bridge.calls) == len(bridge.sent) == 1


async def test_kept_calls_are_taken_up_unless_they_ended() -> None:
    bridge = Bridge()
    bridge.tools.recover([(1, call(1)), (2, call(2)), (3, ended(1)), (4, call(3))])
    await settled()
    assert [call.call_id for call in bridge.calls] == ["call2", "call3"]


async def test_models_use_an_id_again() -> None:
    bridge = Bridge()
    again = call(2, tool_call_id="call1")
    bridge.tools.recover([(1, call(1)), (2, ended(1)), (3, again)])
    await settled()
    assert [(call.call_id, call.request_id) for call in bridge.calls] == [("call1", "r2")]
    bridge.tools.read(4, call(3, tool_call_id="call1"))
    await settled()
    assert [call.request_id for call in bridge.calls] == ["r2", "r3"]


async def test_conversations_share_no_ids() -> None:
    bridge = Bridge(hold=True)
    bridge.tools.read(1, call())
    await settled()
    elsewhere = {**ended(), "runtime": {**SCOPE, "conversation_id": "c2"}}
    bridge.tools.read(2, elsewhere)
    await settled()
    assert bridge.tools.oldest == 1
    await bridge.tools.close()


async def test_an_answer_that_could_not_go_out_goes_out_later() -> None:
    bridge = Bridge()
    bridge.up = False
    bridge.tools.read(1, call())
    await settled()
    assert bridge.sent == []
    bridge.up = True
    bridge.tools.recover([])
    bridge.tools.recover([])
    assert [frame["request_id"] for frame in bridge.sent] == ["r1"]


async def test_our_tools_need_no_approval_others_do() -> None:
    bridge = Bridge()
    bridge.tools.read(1, asked("Bash"))
    bridge.tools.read(1, asked(["note"]))  # type: ignore[arg-type]
    assert bridge.sent == []
    bridge.tools.read(1, asked())
    bridge.tools.recover([(1, asked()), (2, ended(1))])
    (frame,) = bridge.sent
    assert frame["runtime"] == SCOPE
    decision = {"behavior": "allow"}
    assert frame["payload"] == {
        "kind": "approval_response",
        "request_id": "perm",
        "decision": decision,
    }


async def test_a_call_that_ended_elsewhere_is_stopped() -> None:
    bridge = Bridge(hold=True)
    bridge.tools.read(1, call())
    await settled()
    bridge.tools.read(2, ended())
    await settled()
    assert bridge.tools.oldest is None
    assert bridge.sent == []


async def test_stopping_answers_only_that_conversation() -> None:
    bridge = Bridge(hold=True)
    bridge.tools.read(1, call(1))
    bridge.tools.read(2, call(2, runtime={**SCOPE, "conversation_id": "c2"}))
    await settled()
    bridge.tools.stop(Scope("a1", "c1"))
    await settled()
    (answer,) = bridge.sent
    assert (answer["request_id"], answer["result"]["is_error"]) == ("r1", True)
    assert bridge.tools.oldest == 2
    await bridge.tools.close()
    assert bridge.tools.oldest is None


async def test_a_handler_that_breaks_its_word_is_an_error_for_the_agent() -> None:
    bridge = Bridge()
    with capture_logs() as logs:
        bridge.tools.read(1, call(input={"text": "bad"}))
        await settled()
    (answer,) = bridge.sent
    assert answer["result"]["is_error"]
    assert "secret" not in str(answer)
    assert [log["event"] for log in logs] == ["a tool failed"]


async def test_a_tool_that_is_no_longer_offered_is_told() -> None:
    bridge = Bridge()
    bridge.tools.read(1, call(tool_name="gone"))
    (answer,) = bridge.sent
    assert answer["result"]["is_error"]


@pytest.mark.parametrize(
    "fields",
    [{"request_id": 5}, {"tool_call_id": None}, {"runtime": None}, {"runtime": {"agent_id": 3}}],
)
async def test_nonsense_is_counted(fields: Json) -> None:
    bridge = Bridge()
    bridge.tools.read(1, call(**fields))
    bridge.tools.recover([(1, call(**fields)), (2, {"delta": 3}), (3, {"request": [1]})])
    assert bridge.sent == []
    assert bridge.counters["malformed external_tool_call_request"] == 2


async def test_nothing_offered_is_nothing_registered() -> None:
    tools = ExternalTools(lambda _: True, Counter())
    assert tools.groups == []
    (group,) = Bridge().tools.groups
    (definition,) = group["tools"]
    assert definition["auto_background"] is False
    assert 1000 <= definition["timeout_ms"] <= 300_000


async def test_a_conversation_that_rests_runs_no_call() -> None:
    bridge = Bridge(hold=True)
    bridge.tools.read(1, call())
    await settled()
    loop = {"type": "update_loop_status", "runtime": SCOPE}
    bridge.tools.read(2, {**loop, "loop_status": {"status": "EXECUTING_CLIENT_SIDE_TOOL"}})
    assert bridge.sent == []
    bridge.tools.read(3, {**loop, "loop_status": {"status": "WAITING_ON_INPUT"}})
    assert [frame["request_id"] for frame in bridge.sent] == ["r1"]
