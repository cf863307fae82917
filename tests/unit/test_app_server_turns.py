"""Frames of an App Server, read as turns, errors and stored replies."""

import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from letta_matrix.runtimes.app_server.frames import Scope, ScopedFrame, parse, scope_of
from letta_matrix.runtimes.app_server.history import read_turn
from letta_matrix.runtimes.app_server.turns import TurnReader
from letta_matrix.runtimes.error_lines import error_line
from letta_matrix.runtimes.protocol import (
    ApprovalRequested,
    ModelRetried,
    ReasoningDelta,
    StopReason,
    TextDelta,
    TextEnded,
    ToolReturned,
    ToolStarted,
    TurnEvent,
    TurnFinished,
    TurnStarted,
)

Json = dict[str, Any]


def loop(status: str, active: list[str], **runs: list[str]) -> Json:
    state = {"status": status, "active_run_ids": active, "client_message_ids_by_run_id": runs}
    return {"type": "update_loop_status", "loop_status": state}


def delta(kind: str, run: str = "r1", **fields: object) -> Json:
    return {"type": "stream_delta", "delta": {"message_type": kind, "run_id": run, **fields}}


def said(text: str, seq: int, run: str = "r1", part: str = "m1") -> Json:
    content = [{"type": "text", "text": text}]
    return delta("assistant_message", run, id=part, seq_id=seq, content=content)


def finished(run: str | None = "r1", stop: str = "end_turn", **fields: object) -> Json:
    return {"type": "turn_finished", "run_id": run, "stop_reason": stop, **fields}


ACCEPTED: Json = {
    "type": "input_accepted",
    "request_id": "q",
    "accepted": True,
    "disposition": "started",
}
QUEUED: Json = {**ACCEPTED, "disposition": "queued"}


def read(*frames: Json, reader: TurnReader | None = None) -> list[TurnEvent]:
    reader = reader or TurnReader("$1", "q")
    events: list[TurnEvent] = []
    for seq, data in enumerate(frames):
        events += reader.read(ScopedFrame(seq, 1, data))
    return events


def text_of(events: list[TurnEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def test_a_plain_turn() -> None:
    events = read(
        ACCEPTED,
        loop("PROCESSING_API_RESPONSE", ["r1"], r1=["$1"]),
        delta("reasoning_message", id="m0", seq_id=1, reasoning="hm"),
        said("he", 2),
        said("llo", 3),
        delta("stop_reason", stop_reason="end_turn", seq_id=4),
        loop("WAITING_ON_INPUT", [], r1=["$1"]),
        finished(),
    )
    assert events == [
        TurnStarted("r1"),
        ReasoningDelta("m0", "hm"),
        TextDelta("m1", "he"),
        TextDelta("m1", "llo"),
        TextEnded(),
        TurnFinished(StopReason.END_TURN, "", "r1"),
    ]


def test_repeated_deltas_count_once() -> None:
    keyed = {**delta("assistant_message", id="m1", content="x"), "idempotency_key": "k"}
    assert text_of(read(ACCEPTED, said("a", 1), said("a", 1), keyed, keyed)) == "ax"


def test_a_stretch_of_a_run_that_comes_again_counts_once() -> None:
    first, second = said("a", 1), said("b", 2)
    assert text_of(read(ACCEPTED, first, second, first, second, said("c", 3, "r2"))) == "abc"


def test_a_long_turn_is_read_in_little_memory() -> None:
    reader = TurnReader("$1", "q")
    read(ACCEPTED, reader=reader)
    tracemalloc.start()
    for number in range(5_000):
        read(said("x", number), reader=reader)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 100_000


def test_a_queued_turn_passes_over_the_one_before() -> None:
    events = read(
        QUEUED,
        loop("PROCESSING_API_RESPONSE", ["r0"], r0=["$0"]),
        said("other", 1, "r0"),
        finished("r0"),
        {"type": "update_queue", "queue": [], "removed": [{"client_message_id": "$1"}]},
        loop("PROCESSING_API_RESPONSE", ["r1"], r0=["$0"], r1=["$1"]),
        said("ours", 1),
        finished(),
    )
    assert text_of(events) == "ours"
    assert events[-1] == TurnFinished(StopReason.END_TURN, "", "r1")


def test_an_end_before_our_start_is_not_ours() -> None:
    assert read(finished("r0"), ACCEPTED) == []


def test_a_slow_model_has_begun_before_its_first_word() -> None:
    reader = TurnReader("$1", "q")
    assert read(ACCEPTED, loop("SENDING_API_REQUEST", []), reader=reader) == [TurnStarted()]
    assert reader.begun


def test_tools_and_approvals_are_told_once() -> None:
    call = {"tool_call_id": "c1", "name": "Bash", "arguments": '{"command":"ls"}'}
    asked = {"tool_name": "Bash", "tool_call_id": "c1", "input": {"command": "ls"}}
    request = {"subtype": "can_use_tool", **asked}
    returned = delta("tool_return_message", tool_call_id="c1", status="success", tool_return="done")
    control: Json = {"type": "control_request", "request_id": "perm-c1", "request": request}
    events = read(
        ACCEPTED,
        delta("approval_request_message", seq_id=1, tool_call=call),
        control,
        control,
        delta("client_tool_start", tool_call_id="c1", tool_name="Bash", tool_args="{}"),
        delta("client_tool_end", tool_call_id="c1", status="success"),
        returned,
        returned,
    )
    assert events == [
        TurnStarted("r1"),
        ApprovalRequested("perm-c1", "Bash", {"command": "ls"}, call_id="c1"),
        ToolStarted("c1", "Bash", "{}"),
        ToolReturned("c1", True, "done"),
    ]


def test_a_denied_tool_has_a_name() -> None:
    reader = TurnReader("$1", "q")
    pieces = [{"tool_call_id": "c1", "name": "Bash", "arguments": '{"a":'}]
    more = [{"tool_call_id": "c1", "arguments": "1}"}]
    events = read(
        ACCEPTED,
        delta("approval_request_message", seq_id=1, tool_calls=pieces),
        delta("approval_request_message", seq_id=2, tool_calls=more),
        delta("tool_return_message", tool_call_id="c1", status="error", tool_return="no"),
        reader=reader,
    )
    assert events[1:] == [ToolStarted("c1", "Bash", '{"a":1}'), ToolReturned("c1", False, "no")]
    assert not reader.tools_started


def test_an_error_without_a_run() -> None:
    error = "Conversation local-conv-3 already has an active run (r0)"
    failed = {**delta("loop_error", "", message=error), "idempotency_key": "k"}
    reader = TurnReader("$1", "q")
    events = read(ACCEPTED, failed, finished(None, "error", error=error), reader=reader)
    assert events == [TurnStarted(), TurnFinished(StopReason.ERROR, error, "")]
    assert reader.wedged


def test_the_unknown_is_counted() -> None:
    reader = TurnReader("$1", "q")
    odd: Json = {"type": "control_request", "request_id": "x", "request": {"subtype": "new"}}
    events = read(ACCEPTED, {"type": "news"}, delta("hologram"), odd, reader=reader)
    assert events == [TurnStarted("r1")]
    assert reader.unknown == ["news", "delta hologram", "control_request new"]


@pytest.mark.parametrize(
    "frame",
    [
        {"type": "stream_delta"},
        {"type": "stream_delta", "delta": "x"},
        {"type": "update_loop_status", "loop_status": None},
        {"type": "update_queue", "queue": 3, "removed": ["x"]},
        {"type": "control_request", "request": []},
        {
            "type": "update_loop_status",
            "loop_status": {"client_message_ids_by_run_id": {"r": None}},
        },
        {"type": "update_loop_status", "loop_status": {"active_run_ids": 7}},
        {"type": 7},
        delta("assistant_message", content={"a": 1}),
        delta("approval_request_message", tool_call="x"),
    ],
)
def test_malformed_frames_do_no_harm(frame: Json) -> None:
    events = read(ACCEPTED, frame, said("still here", 9), finished())
    assert text_of(events) == "still here"
    assert isinstance(events[-1], TurnFinished)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        ("Agent agent-nope not found", "Agent agent-nope not found"),
        (
            '{"error":{"error":{"type":"t","message":"500: {\\"message\\":\\"told to fail\\"}"}}}',
            "the model provider answered HTTP 500: told to fail",
        ),
        ("first line\n    at stack (file.js:1)", "first line"),
        (None, "no reason was given"),
        ("{}", "{}"),
        ("x" * 1000, "x" * 300),
        ("\x1b[2Jgone\x00", "\ufffd[2Jgone\ufffd"),
    ],
)
def test_errors_become_one_line(error: object, line: str) -> None:
    assert error_line(error) == line


def test_scopes() -> None:
    place = {"agent_id": "a", "conversation_id": "c"}
    assert scope_of({"runtime": place}) == Scope("a", "c")
    assert scope_of(place) == Scope("a", "c")
    assert scope_of({"runtime": "x"}) is None
    assert scope_of({"agent_id": "a"}) is None
    assert parse(b"[1]") is None
    assert parse(b"{") is None


def stored(kind: str, number: int, text: str = "", otid: str | None = None) -> Json:
    content = [{"type": "text", "text": text}]
    return {"id": f"m{number}", "message_type": kind, "content": content, "otid": otid}


def test_a_stored_reply_ends_at_the_next_message() -> None:
    reminder = "<system-reminder>The user interrupted\nthe stream.</system-reminder>\n"
    turn = read_turn(
        [
            stored("user_message", 1, "before", "$0"),
            stored("assistant_message", 2, "old"),
            stored("user_message", 3, "ours", "$1"),
            stored("assistant_message", 4, "one"),
            stored("user_message", 5, reminder, "x"),
            stored("tool_return_message", 6),
            stored("assistant_message", 7, "<system-reminder>x</system-reminder>two"),
            stored("user_message", 8, "next", "$2"),
            stored("assistant_message", 9, "not ours"),
        ],
        "$1",
    )
    assert turn is not None
    assert turn.texts == [("m4", "one"), ("m7", "two")]
    assert (turn.before, turn.followed, turn.tools) == ("m2", True, True)


def test_a_message_from_matrix_is_one_even_without_words_of_its_own() -> None:
    reminder = "<system-reminder>An image was left out.</system-reminder>"
    turn = read_turn(
        [
            stored("user_message", 1, "ours", "$1"),
            stored("assistant_message", 2, "one"),
            stored("user_message", 3, reminder, "$2"),
            stored("assistant_message", 4, "not ours"),
        ],
        "$1",
    )
    assert turn is not None
    assert (turn.texts, turn.followed) == ([("m2", "one")], True)


def test_the_last_of_repeated_prompts_counts() -> None:
    turn = read_turn(
        [
            stored("user_message", 1, "ours", "$1"),
            stored("assistant_message", 2, "half"),
            stored("user_message", 3, "ours", "$1"),
            stored("assistant_message", 4, "whole"),
        ],
        "$1",
    )
    assert turn is not None
    assert turn.texts == [("m4", "whole")]
    assert (turn.before, turn.followed, turn.tools) == ("", False, False)
    assert read_turn([], "$1") is None


ODD: st.SearchStrategy[object] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.sampled_from(["$1", "r1"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["id", "r1", "status", "text"]), inner, max_size=2)
    ),
    max_leaves=4,
)
TYPES = [
    "update_loop_status",
    "turn_finished",
    "control_request",
    "input_accepted",
    "update_queue",
    "stream_delta",
]
FIELDS = [
    "loop_status",
    "run_id",
    "error",
    "stop_reason",
    "request",
    "request_id",
    "queue",
    "removed",
    "accepted",
    "delta",
    "idempotency_key",
]
KINDS = [
    "assistant_message",
    "tool_return_message",
    "client_tool_start",
    "stop_reason",
    "reasoning_message",
    "approval_request_message",
    "loop_error",
    "user_message",
]
DELTA_FIELDS = [
    "id",
    "content",
    "run_id",
    "seq_id",
    "tool_call",
    "tool_calls",
    "tool_call_id",
    "status",
    "reasoning",
    "otid",
    "message",
    "stop_reason",
    "tool_return",
]


def frame_of(kind: object, fields: Json) -> Json:
    return {**fields, "type": kind}


def delta_of(kind: object, fields: Json) -> Json:
    return {"type": "stream_delta", "delta": {**fields, "message_type": kind}}


FRAMES = st.builds(
    frame_of,
    st.sampled_from(TYPES) | ODD,
    st.dictionaries(st.sampled_from(FIELDS), ODD, max_size=4),
)
DELTAS = st.builds(
    delta_of,
    st.sampled_from(KINDS) | ODD,
    st.dictionaries(st.sampled_from(DELTA_FIELDS), ODD, max_size=4),
)


@given(st.lists(DELTAS | FRAMES, max_size=6))
def test_no_frame_is_too_odd_to_read(frames: list[Json]) -> None:
    reader = TurnReader("$1", "q")
    read(ACCEPTED, loop("PROCESSING_API_RESPONSE", ["r1"], r1=["$1"]), reader=reader)
    for event in read(*frames, reader=reader):
        assert isinstance(event, TurnEvent)


def asked_for(tool: str, **request: object) -> Json:
    fields = {"subtype": "can_use_tool", "tool_name": tool, "input": {"command": "x"}, **request}
    return {"type": "control_request", "request_id": f"perm-{tool}", "request": fields}


def test_an_approval_is_offered_for_good_only_where_the_request_says_so() -> None:
    kept = [{"id": "save-default", "text": "Yes, and don't ask again"}]
    events = read(
        ACCEPTED,
        asked_for("Bash", permission_suggestions=kept),
        asked_for("Write", permission_suggestions=[]),
        asked_for("Edit", permission_suggestions=[{"id": "other"}, None]),
    )
    approvals = [event for event in events if isinstance(event, ApprovalRequested)]
    assert [(approval.tool, approval.always) for approval in approvals] == [
        ("Bash", True),
        ("Write", False),
        ("Edit", False),
    ]


def test_our_own_tools_ask_nobody() -> None:
    reader = TurnReader("$1", "q", frozenset({"note"}))
    events = read(ACCEPTED, asked_for("note"), asked_for("Bash"), reader=reader)
    assert [event.tool for event in events if isinstance(event, ApprovalRequested)] == ["Bash"]


def test_a_model_that_is_asked_again_is_told_of() -> None:
    again = delta("retry", attempt=1, max_attempts=3, delay_ms=1000, reason="Connection error.")
    events = read(ACCEPTED, loop("PROCESSING_API_RESPONSE", ["r1"], r1=["$1"]), again)
    assert events[-1] == ModelRetried("Connection error.")
    coded = delta("retry", reason="llm_api_error", message="OpenAI API error, retrying...")
    events = read(ACCEPTED, loop("PROCESSING_API_RESPONSE", ["r1"], r1=["$1"]), coded)
    assert events[-1] == ModelRetried("OpenAI API error")
