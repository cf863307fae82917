"""Messages of runs, streamed or stored, as turn events."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from letta_matrix.common.json_fields import Json, as_list, id_of, string_of, text_of
from letta_matrix.runtimes.error_lines import first_line
from letta_matrix.runtimes.letta_api.calls import Call
from letta_matrix.runtimes.letta_api.errors import reason_of, tells_of_approval
from letta_matrix.runtimes.letta_json import calls_of
from letta_matrix.runtimes.protocol import (
    ReasoningDelta,
    StopReason,
    TextDelta,
    TextEnded,
    ToolReturned,
    ToolStarted,
    TurnEvent,
    TurnFinished,
)

_SILENT = frozenset(
    (
        "ping",
        "usage_statistics",
        "user_message",
        "system_message",
        "hidden_reasoning_message",
        "approval_response_message",
        "summary_message",
        "event_message",
    )
)
_CALLS = ("tool_call_message", "approval_request_message")
ASKS = "requires_approval"
ENDED = {"completed": "end_turn", "cancelled": "cancelled", "failed": "error"}
"""How a run can have ended, and the stop reason that this is where it names none."""
_WELL = ("end_turn", "tool_rule")
_ERRORS = {
    ASKS: "the agent asked for an approval of nothing that could be shown",
    "error": "the run failed",
    "llm_api_error": "the model provider failed",
    "invalid_llm_response": "the model gave an answer that made no sense",
    "invalid_tool_call": "the model called a tool wrongly",
    "no_tool_call": "the model called no tool though it had to",
    "max_steps": "the agent reached its limit of steps",
    "max_tokens_exceeded": "the model's answer reached its limit of length",
    "insufficient_credits": "the Letta account is out of credits",
    "context_window_overflow_in_system_prompt": "the agent's memory no longer fits its model",
}
_MAX_NAME = 40


@dataclass(slots=True)
class TurnReader:
    """What one turn's runs say, each thing once.

    `stop_reason` and `error` are those of the run being read; `approvals` are the calls that
    wait for an answer when it stops for that. `error` holds none of `secrets`.
    `blocked`: it failed because a call from before waits for an answer.
    """

    counters: Counter[str]
    secrets: tuple[str, ...] = ()
    stop_reason: str = ""
    error: str = ""
    tools_started: bool = False
    blocked: bool = False
    approvals: dict[str, Call] = field(default_factory=dict[str, Call])
    _seq: int = 0
    _texts: dict[tuple[str, str], list[str]] = field(
        default_factory=dict[tuple[str, str], list[str]]
    )
    _calls: dict[str, Call] = field(default_factory=dict[str, Call])
    _started: set[str] = field(default_factory=set[str])
    _returned: set[str] = field(default_factory=set[str])

    def begin_run(self) -> None:
        """Forget what belonged to the run before."""
        self.stop_reason = self.error = ""
        self.approvals = {}
        self._seq = 0

    def read(self, data: Json) -> Iterator[TurnEvent]:
        """The events that a streamed message brings."""
        kind = str(data.get("message_type") or "")
        if self._is_repeated(data):
            return
        if kind in ("assistant_message", "reasoning_message"):
            yield from self._say(kind, id_of(data), _text(kind, data))
        elif kind in _CALLS:
            yield from self._called(data, asks=kind == "approval_request_message")
        elif kind == "tool_return_message":
            yield from self._tools_returned(data)
        elif kind == "stop_reason":
            yield from self._stopped(data)
        elif kind == "error_message":
            self.fail(data)
        elif kind not in _SILENT:
            self.counters[f"unknown message {kind[:_MAX_NAME]}"] += 1

    def fail(self, error: object) -> None:
        """Note why the run failed, if that is said."""
        self.blocked |= tells_of_approval(error)
        self.error = reason_of(error, *self.secrets) or self.error

    def complete(self, messages: Iterable[Json]) -> Iterator[TurnEvent]:
        """The events that a run's stored messages bring beyond what was streamed."""
        stored: dict[tuple[str, str], str] = {}
        for data in messages:
            kind, part_id = str(data.get("message_type") or ""), id_of(data)
            if kind in ("assistant_message", "reasoning_message"):
                key = (kind, part_id)
                stored[key] = stored.get(key, "") + _text(kind, data)
                streamed = "".join(self._texts.get(key, []))
                if stored[key].startswith(streamed):
                    yield from self._say(kind, part_id, stored[key][len(streamed) :])
            elif kind in _CALLS:
                self._forget_calls(data)
                yield from self._called(data, asks=kind == "approval_request_message")
            elif kind == "tool_return_message":
                yield from self._tools_returned(data)

    def start(self, call_id: str) -> Iterator[TurnEvent]:
        """The event that a call starts, unless it has come."""
        if call_id in self._started:
            return
        self._started.add(call_id)
        self.tools_started = True
        call = self._calls.get(call_id) or Call(call_id)
        yield ToolStarted(call_id, call.name, call.arguments)

    def end(self, run_id: str, *, cancelled: bool) -> TurnFinished:
        """How the turn has ended, by what its last run said."""
        reason = self.stop_reason
        if cancelled or reason == "cancelled":
            return TurnFinished(StopReason.CANCELLED, run_id=run_id)
        if reason in _WELL:
            return TurnFinished(StopReason.END_TURN, run_id=run_id)
        line = self.error or _ERRORS.get(reason)
        line = line or first_line(f"the run stopped: {reason}", *self.secrets)
        return TurnFinished(StopReason.ERROR, line, run_id)

    def _is_repeated(self, data: Json) -> bool:
        seq = data.get("seq_id")
        if not isinstance(seq, int) or data.get("message_type") == "ping":
            return False
        if seq <= self._seq:
            return True
        self._seq = seq
        return False

    def _say(self, kind: str, part_id: str, text: str) -> Iterator[TurnEvent]:
        if not text:
            return
        self._texts.setdefault((kind, part_id), []).append(text)
        event = TextDelta if kind == "assistant_message" else ReasoningDelta
        yield event(part_id, text)

    def _called(self, data: Json, *, asks: bool) -> Iterator[TurnEvent]:
        for piece in calls_of(data):
            call_id = string_of(piece, "tool_call_id")
            if not call_id:
                self.counters["malformed tool call"] += 1
                continue
            call = self._calls.setdefault(call_id, Call(call_id))
            call.name = string_of(piece, "name") or call.name
            call.add(string_of(piece, "arguments"))
            if asks:
                self.approvals[call_id] = call
            elif call.whole:
                yield from self.start(call_id)

    def _forget_calls(self, data: Json) -> None:
        for piece in calls_of(data):
            self._calls.pop(string_of(piece, "tool_call_id"), None)

    def _tools_returned(self, data: Json) -> Iterator[TurnEvent]:
        for result in as_list(data.get("tool_returns")) or [data]:
            call_id = string_of(result, "tool_call_id")
            if not call_id or call_id in self._returned:
                continue
            self._returned.add(call_id)
            yield from self.start(call_id)
            output = text_of(result.get("tool_return") or result.get("func_response"))
            yield ToolReturned(call_id, result.get("status") == "success", output)

    def _stopped(self, data: Json) -> Iterator[TurnEvent]:
        self.stop_reason = string_of(data, "stop_reason") or "error"
        if self.stop_reason == "end_turn":
            yield TextEnded()


def _text(kind: str, data: Json) -> str:
    if kind == "assistant_message":
        return text_of(data.get("content"))
    return string_of(data, "reasoning")
