"""Reading streams and messages of a Letta API, whatever they hold."""

import json
from collections import Counter
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from letta_matrix.runtimes.faults import AgentGone, ConversationGone, RateLimited
from letta_matrix.runtimes.letta_api.errors import fault_of, reason_of
from letta_matrix.runtimes.letta_api.progress import Progress
from letta_matrix.runtimes.letta_api.reader import TurnReader
from letta_matrix.runtimes.letta_api.sse import StreamEvent, read_events
from letta_matrix.runtimes.protocol import TextDelta, ToolReturned, ToolStarted, TurnEvent

Json = dict[str, Any]
KINDS = ("assistant_message", "tool_call_message", "approval_request_message", "stop_reason")
NAMES = ("content", "tool_call", "tool_calls", "tool_returns", "id", "seq_id", "stop_reason")

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


async def events_of(*chunks: bytes) -> tuple[list[StreamEvent], Counter[str]]:
    async def source() -> AsyncGenerator[bytes]:
        for chunk in chunks:
            yield chunk

    counters: Counter[str] = Counter()
    return [event async for event in read_events(source(), counters)], counters


def read(reader: TurnReader, *messages: Json) -> list[TurnEvent]:
    return [event for message in messages for event in reader.read(message)]


def call(arguments: str, name: str | None = "look_up") -> Json:
    piece = {"tool_call_id": "c1", "name": name, "arguments": arguments}
    return {"message_type": "tool_call_message", "id": "m1", "tool_call": piece}


async def test_events_may_come_in_any_pieces() -> None:
    text = 'data: {"id": "ö\u2028"}\r\n\r\n: a comment\n\nevent: error\ndata: {"a": 1}\n\n'.encode()
    whole, _ = await events_of(text)
    bytewise, counters = await events_of(*(text[i : i + 1] for i in range(len(text))))
    assert whole == [StreamEvent("", {"id": "ö\u2028"}), StreamEvent("error", {"a": 1})]
    assert bytewise == whole
    assert not counters


async def test_nothing_is_read_after_the_end_of_a_stream() -> None:
    events, _ = await events_of(b'data: {"a": 1}\n\ndata: [DONE]\n\ndata: {"b": 2}\n\n')
    assert events == [StreamEvent("", {"a": 1})]


async def test_malformed_events_are_counted_and_passed_over() -> None:
    events, counters = await events_of(b'data: {"a":\n\ndata: [1]\n\n<html>\n\ndata: {"b": 2}\n\n')
    assert events == [StreamEvent("", {"b": 2})]
    assert counters == {"malformed stream event": 2, "malformed stream line": 1}


def test_a_tool_starts_when_its_arguments_are_whole() -> None:
    reader = TurnReader(Counter())
    assert read(reader, call('{"a"'), call(": ", None)) == []
    assert read(reader, call("1}", None)) == [ToolStarted("c1", "look_up", '{"a": 1}')]
    result = {"tool_call_id": "c1", "status": "success", "tool_return": "fine"}
    returned = {"message_type": "tool_return_message", "tool_returns": [result]}
    assert read(reader, returned, returned) == [ToolReturned("c1", True, "fine")]


def test_a_repeated_part_of_a_stream_counts_once() -> None:
    reader = TurnReader(Counter())
    message = {"message_type": "assistant_message", "id": "m", "content": "a", "seq_id": 4}
    assert read(reader, message, message) == [TextDelta("m", "a")]


def test_stored_messages_bring_only_what_was_not_streamed() -> None:
    reader = TurnReader(Counter())
    read(reader, {"message_type": "assistant_message", "id": "m", "content": "one "})
    stored = [
        {"message_type": "user_message", "id": "u", "content": "hello"},
        {"message_type": "assistant_message", "id": "m", "content": "one two"},
        {"message_type": "assistant_message", "id": "n", "content": [{"text": "three"}]},
    ]
    assert list(reader.complete(stored)) == [TextDelta("m", "two"), TextDelta("n", "three")]


def test_unknown_messages_are_counted() -> None:
    reader = TurnReader(Counter())
    assert read(reader, {"message_type": "hologram"}, {"a": 1}) == []
    assert reader.counters == {"unknown message hologram": 1, "unknown message ": 1}


def test_arguments_that_are_no_object_are_shown_whole() -> None:
    reader = TurnReader(Counter())
    message = {**call("rm -rf /"), "message_type": "approval_request_message"}
    assert read(reader, message) == []
    assert reader.approvals["c1"].fields == {"arguments": "rm -rf /"}


@given(st.sampled_from(KINDS), st.dictionaries(st.sampled_from(NAMES), values))
def test_no_message_breaks_the_reader(kind: str, fields: Json) -> None:
    reader = TurnReader(Counter())
    message = {"message_type": kind, **fields}
    list(reader.read(message))
    list(reader.complete([message]))


@given(st.dictionaries(st.sampled_from(("runs", "answers", "tools", "cancelled")), values))
def test_no_saved_state_breaks_a_turn(state: Json) -> None:
    kept = Progress.load(state).as_state()
    assert Progress.load(json.loads(json.dumps(kept))).as_state() == kept


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"detail": "no"}, "no"),
        ({"detail": [{"loc": ["body"], "msg": "Field required"}]}, "Field required"),
        ({"error": {"message": "first\nsecond"}}, "first"),
        ("<html>", ""),
        (None, ""),
        ({"detail": {"code": "PENDING_APPROVAL", "message": "waits"}}, "waits"),
    ],
)
def test_the_reason_is_found_in_any_error(body: object, reason: str) -> None:
    assert reason_of(body) == reason


def test_what_is_missing_is_told() -> None:
    assert isinstance(fault_of("x", 404, {"detail": "Agent not found"}, {}), AgentGone)
    gone = fault_of("x", 404, {"detail": "Conversation conv-1 of agent-1 not found"}, {})
    assert isinstance(gone, ConversationGone)


@pytest.mark.parametrize(("header", "seconds"), [("2.5", 2.5), ("inf", 0), ("-1", 0), ("Mon", 0)])
def test_a_pause_is_a_finite_number(header: str, seconds: float) -> None:
    fault = fault_of("x", 429, None, {"retry-after": header})
    assert isinstance(fault, RateLimited)
    assert fault.retry_after == seconds
