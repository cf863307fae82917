"""One turn's frames turned into turn events."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from letta_matrix.common.json_fields import Json, as_list, as_texts, mapping, text_of
from letta_matrix.runtimes.app_server.frames import IDLE, ScopedFrame, refusal
from letta_matrix.runtimes.error_lines import error_line
from letta_matrix.runtimes.faults import AgentGone, ConversationGone, RuntimeFault
from letta_matrix.runtimes.letta_json import calls_of
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

_STOPS = {"end_turn": StopReason.END_TURN, "cancelled": StopReason.CANCELLED}
_SILENT = {
    "update_queue",
    "runtime_start_response",
    "abort_message_response",
    "resume_queue_response",
    "sync_response",
    "external_tool_call_request",
    "crons_updated",
}
_SILENT_DELTAS = {
    "usage_statistics",
    "stop_reason",
    "status",
    "approval_classification_end",
    "approval_classification_start",
    "approval_response_message",
    "client_tool_end",
    "user_message",
    "system_message",
    "ping",
}
WEDGED = "already has an active run"
ALWAYS = "save-default"
"""The permission suggestion by which the App Server says that a call may be allowed for good."""


@dataclass(slots=True)
class TurnReader:
    """Reads the frames of one conversation for the turn that `message_id` prompted.

    Frames of other turns in that conversation are passed over. `taken` is set once the App
    Server has our message, `begun` once frames of its turn appeared, `from_start` if none
    was missed; `busy` tells whether anything runs; `unknown` lists what this version does
    not know; `gone` is the fault if the agent or the conversation does not exist; `approvals`
    are the ids of all that were asked for. Those for tools in `unasked` are nobody's business.
    With `anew` the turn is one that begins a second time, if it begins.
    """

    message_id: str
    request_id: str
    unasked: frozenset[str] = frozenset()
    anew: bool = False
    taken: bool = False
    begun: bool = False
    finished: bool = False
    wedged: bool = False
    gone: RuntimeFault | None = None
    tools_started: bool = False
    approvals: list[str] = field(default_factory=list[str])
    from_start: bool = False
    busy: bool = False
    run_id: str = ""
    unknown: list[str] = field(default_factory=list[str])
    _ours: set[str] = field(default_factory=set[str])
    _others: set[str] = field(default_factory=set[str])
    _seen: set[tuple[str, str]] = field(default_factory=set[tuple[str, str]])
    _newest: dict[str, int] = field(default_factory=dict[str, int])
    _calls: dict[str, tuple[str, str]] = field(default_factory=dict[str, tuple[str, str]])
    _started_calls: set[str] = field(default_factory=set[str])
    _next: bool = False
    _error: str = ""

    @property
    def remembered(self) -> bool:
        """Whether the App Server still knows, in its memory, a run of our message."""
        return bool(self._ours)

    def adopt(self) -> None:
        """Take what runs in the conversation for our turn."""
        self.taken = self._next = True

    def read(self, frame: ScopedFrame) -> Iterator[TurnEvent]:
        """The events that a frame brings."""
        data, kind = frame.data, frame.type
        if kind == "stream_delta":
            yield from self._delta(data, mapping(data.get("delta")))
        elif kind == "update_loop_status":
            yield from self._loop(mapping(data.get("loop_status")))
        elif kind == "turn_finished":
            yield from self._turn_finished(data)
        elif kind == "control_request":
            yield from self._control(data)
        elif kind == "input_accepted":
            self._accepted(data)
        elif kind == "update_queue":
            yield from self._queue(data)
        elif kind not in _SILENT:
            self.unknown.append(kind)

    def _accepted(self, data: Json) -> None:
        if data.get("request_id") == self.request_id and data.get("accepted"):
            self.taken = self.from_start = True
            self._next = data.get("disposition") == "started"

    def _is_ours(self, run_id: str) -> bool:
        """Runs are told apart by the message ids they list; one that nobody claims is ours
        if ours was the message to be started next."""
        return run_id in self._ours or ((self.begun or self._next) and run_id not in self._others)

    def _begin(self, run_id: str = "") -> Iterator[TurnEvent]:
        self.taken = True
        if run_id:
            self.run_id = run_id
        if not self.begun:
            self.begun = True
            yield TurnStarted(run_id, self.anew)

    def _queue(self, data: Json) -> Iterator[TurnEvent]:
        for item in as_list(data.get("queue")):
            if item.get("client_message_id") == self.message_id:
                self.taken = self.from_start = True
        for item in as_list(data.get("removed")):
            if item.get("client_message_id") == self.message_id:
                self.from_start = True
                yield from self._begin()

    def _loop(self, status: Json) -> Iterator[TurnEvent]:
        runs = mapping(status.get("client_message_ids_by_run_id"))
        for run_id, messages in runs.items():
            if self.message_id in as_texts(messages):
                self._ours.add(run_id)
            else:
                self._others.add(run_id)
        self.busy = status.get("status") != IDLE
        active = as_texts(status.get("active_run_ids"))
        ours = [run_id for run_id in active if run_id in self._ours]
        if ours or (self._next and self.busy and not active):
            yield from self._begin(ours[0] if ours else "")

    def _delta(self, data: Json, delta: Json) -> Iterator[TurnEvent]:
        run_id = str(delta.get("run_id") or "")
        kind = str(delta.get("message_type", ""))
        if kind == "user_message" and delta.get("otid") == self.message_id:
            self.from_start = True
            yield from self._begin()
        if not self._is_ours(run_id) or self._repeated(data, delta):
            return
        yield from self._begin(run_id)
        if kind in ("loop_error", "error_message"):
            self._error = str(delta.get("message") or "")
        elif kind == "assistant_message":
            yield TextDelta(str(delta.get("id", "")), text_of(delta.get("content")))
        elif kind == "stop_reason" and delta.get("stop_reason") == "end_turn":
            yield TextEnded()
        elif kind == "reasoning_message":
            yield ReasoningDelta(str(delta.get("id", "")), text_of(delta.get("reasoning")))
        elif kind in ("approval_request_message", "tool_call_message"):
            self._called(delta)
        elif kind == "client_tool_start":
            yield from self._tool_started(delta)
        elif kind == "tool_return_message":
            yield from self._tool_returned(delta)
        elif kind == "retry":
            yield ModelRetried(error_line(_why_retried(delta)))
        elif kind not in _SILENT_DELTAS:
            self.unknown.append(f"delta {kind}")

    def _repeated(self, data: Json, delta: Json) -> bool:
        """A run's deltas are numbered upwards; the few without a number have a key."""
        seq_id, run_id = delta.get("seq_id"), str(delta.get("run_id"))
        if isinstance(seq_id, int):
            repeated = seq_id <= self._newest.get(run_id, -1)
            self._newest[run_id] = max(seq_id, self._newest.get(run_id, -1))
            return repeated
        key = ("delta", str(data.get("idempotency_key", "")))
        repeated = key[1] != "" and key in self._seen
        self._seen.add(key)
        return repeated

    def _called(self, delta: Json) -> None:
        for call in calls_of(delta):
            call_id = str(call.get("tool_call_id") or "")
            name, arguments = self._calls.get(call_id, ("", ""))
            self._calls[call_id] = (
                str(call.get("name") or name),
                arguments + str(call.get("arguments") or ""),
            )

    def _tool_started(self, delta: Json) -> Iterator[TurnEvent]:
        self.tools_started = True
        call_id = str(delta.get("tool_call_id") or "")
        name, arguments = self._calls.get(call_id, ("", ""))
        if call_id not in self._started_calls:
            self._started_calls.add(call_id)
            yield ToolStarted(
                call_id,
                str(delta.get("tool_name") or name),
                str(delta.get("tool_args") or arguments),
            )

    def _tool_returned(self, delta: Json) -> Iterator[TurnEvent]:
        call_id = str(delta.get("tool_call_id") or "")
        if ("returned", call_id) in self._seen:
            return
        self._seen.add(("returned", call_id))
        if call_id not in self._started_calls:
            # A denied call never starts; whoever shows calls still wants its name.
            self._started_calls.add(call_id)
            yield ToolStarted(call_id, *self._calls.get(call_id, ("", "")))
        ok = delta.get("status") == "success"
        self.tools_started |= ok
        yield ToolReturned(call_id, ok, text_of(delta.get("tool_return")))

    def _control(self, data: Json) -> Iterator[TurnEvent]:
        """A turn that waits behind another one waits for the other's approvals too."""
        request = mapping(data.get("request"))
        approval_id = str(data.get("request_id", ""))
        tool = str(request.get("tool_name", ""))
        if not self.taken or ("approval", approval_id) in self._seen or tool in self.unasked:
            return
        if request.get("subtype") != "can_use_tool":
            self.unknown.append(f"control_request {request.get('subtype')}")
            return
        self._seen.add(("approval", approval_id))
        self.approvals.append(approval_id)
        suggestions = as_list(request.get("permission_suggestions"))
        always = any(suggestion.get("id") == ALWAYS for suggestion in suggestions)
        call_id = str(request.get("tool_call_id") or "")
        yield ApprovalRequested(approval_id, tool, mapping(request.get("input")), always, call_id)

    def _turn_finished(self, data: Json) -> Iterator[TurnEvent]:
        run_id = str(data.get("run_id") or "")
        if not self._is_ours(run_id):
            return
        yield from self._begin(run_id)
        self.finished = True
        error = str(data.get("error") or self._error)
        self.wedged = WEDGED in error
        fault = refusal(error_line(error), "the App Server")
        if isinstance(fault, AgentGone | ConversationGone) and not self.tools_started:
            self.gone = fault
        stop = _STOPS.get(str(data.get("stop_reason")), StopReason.ERROR)
        line = error_line(error) if stop is StopReason.ERROR else ""
        yield TurnFinished(stop, line, run_id or self.run_id)


def _why_retried(delta: Json) -> str:
    """Why a model is asked again: the App Server's `reason` is mostly a code, its words are in
    the message."""
    reason, message = str(delta.get("reason") or ""), str(delta.get("message") or "")
    return reason if " " in reason or not message else message.removesuffix(", retrying...")
