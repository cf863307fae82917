"""Our tools in the hands of agents: offered to the App Server, run here, answered.

Letta Code 0.34, `external-tool-protocol`: a registration belongs to one connection and one
conversation; the App Server sends a call once, to the connection that registered the tool.
"""

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import structlog

from letta_matrix.common.json_fields import Json, mapping
from letta_matrix.common.tools import ToolCall, ToolHandler, ToolResult, ToolSpec
from letta_matrix.runtimes.app_server.frames import IDLE, Scope, scope_of

LONGEST_CALL = 300_000
"""Milliseconds that the App Server waits for an answer, the most it allows; after that the agent
is told that the outcome is unknown. A frame that asks for more is ignored in silence."""
REMEMBERED = 500
HARMLESS = frozenset({"Memory", "UpdatePlan"})
"""The App Server's own tools that reach no shell, no network and no file but the agent's memory,
and nothing of other agents: its lists of tasks (`TaskList` and so on) are one for all of them and
for all rooms. In the mode `strict` it asks for these, too."""
CALL_REQUEST = "external_tool_call_request"
_ENDS = ("client_tool_end", "tool_return_message")
_log = structlog.get_logger()

Send = Callable[[Json], bool]
"""Sends a frame on every connection to the App Server; False if there is none now."""


@dataclass(frozen=True, slots=True)
class _Running:
    seq: int
    scope: Scope
    call_id: str
    task: asyncio.Task[None]


class ExternalTools:
    """Runs agents' calls of the offered tools, each in a task of its own.

    Calls are known by the App Server's `request_id`: one that is running or answered is not
    run again by this object, however often its frame is read.
    """

    def __init__(self, send: Send, counters: Counter[str]) -> None:
        self._send = send
        self._counters = counters
        self._specs: dict[str, ToolSpec] = {}
        self._handler: ToolHandler | None = None
        self._running: dict[str, _Running] = {}
        self._answered: OrderedDict[str, None] = OrderedDict()
        self._unsent: dict[str, Json] = {}

    def offer(self, specs: Sequence[ToolSpec], handler: ToolHandler) -> None:
        self._specs = {spec.name: spec for spec in specs}
        self._handler = handler

    @property
    def unasked(self) -> frozenset[str]:
        """The tools that need nobody's approval."""
        return HARMLESS.union(self._specs)

    @property
    def groups(self) -> list[Json]:
        """The offer as `external_tools` of a frame.

        Without `auto_background` false the App Server goes on without the result after 10 s
        and prompts the agent anew when it comes.
        """
        if not self._specs:
            return []
        return [{"tools": [_definition(spec) for spec in self._specs.values()]}]

    @property
    def oldest(self) -> int | None:
        """Sequence number of the oldest call that still runs."""
        return min((running.seq for running in self._running.values()), default=None)

    def read(self, seq: int, data: Json) -> None:
        """Take note of a live frame: a call, the end of one or of its turn, or the question
        whether a tool may be used for which nobody is asked."""
        kind = data.get("type")
        if kind == CALL_REQUEST:
            self._call(seq, data)
        elif kind == "control_request":
            self._allow(data)
        elif not self._running:
            return
        elif kind == "stream_delta" and (ended := _ended(data)):
            self._end(*ended)
        elif kind == "update_loop_status" and (scope := _resting(data)):
            self.stop(scope)

    def recover(self, frames: Iterable[tuple[int, Json]]) -> None:
        """Send the answers that could not go out, and run those calls among kept frames that
        nobody has answered yet."""
        unsent, self._unsent = self._unsent, {}
        for request_id, answer in unsent.items():
            self._tell(request_id, answer)
        kept = list(frames)
        # Models use an id again in another turn: only a later end is a call's own.
        ends = {key: seq for seq, data in kept if (key := _ended(data)) is not None}
        for seq, data in kept:
            asked = data if data.get("type") == CALL_REQUEST else mapping(data.get("request"))
            scope = scope_of(data)
            key = (scope, str(asked.get("tool_call_id"))) if scope is not None else None
            if asked and (key is None or ends.get(key, -1) < seq):
                self.read(seq, data)

    async def close(self) -> None:
        """Stop what runs; the App Server goes on waiting for it."""
        tasks = [running.task for running in self._running.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def stop(self, scope: Scope) -> None:
        """Stop the calls of a conversation whose turn is aborted: an App Server ends such a turn
        only when they are answered."""
        for request_id, running in list(self._running.items()):
            if running.scope == scope:
                running.task.cancel()
                self._answer(request_id, ToolResult("the turn was cancelled", ok=False))

    def _call(self, seq: int, data: Json) -> None:
        request_id, call_id = data.get("request_id"), data.get("tool_call_id")
        name, scope = data.get("tool_name"), scope_of(data)
        if not (isinstance(request_id, str) and isinstance(call_id, str) and scope):
            self._counters[f"malformed {CALL_REQUEST}"] += 1
            return
        if request_id in self._running or request_id in self._answered:
            return
        if self._handler is None or not isinstance(name, str) or name not in self._specs:
            self._answer(request_id, ToolResult(f"there is no tool {name} any more", ok=False))
            return
        arguments = mapping(data.get("input"))
        call = ToolCall(*scope, call_id, name, arguments, request_id)
        task = asyncio.create_task(self._run(request_id, call, self._handler))
        self._running[request_id] = _Running(seq, scope, call_id, task)
        task.add_done_callback(lambda task: self._done(request_id, task))

    async def _run(self, request_id: str, call: ToolCall, handler: ToolHandler) -> None:
        self._answer(request_id, await handler(call))

    def _done(self, request_id: str, task: asyncio.Task[None]) -> None:
        running = self._running.pop(request_id)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("a tool failed", call_id=running.call_id, exc_info=error)
            self._answer(request_id, ToolResult("the tool failed", ok=False))

    def _answer(self, request_id: str, result: ToolResult) -> None:
        content = [{"type": "text", "text": result.text}]
        answer: Json = {
            "type": "external_tool_call_response",
            "request_id": request_id,
            "result": {"content": content, "is_error": not result.ok},
        }
        self._answered[request_id] = None
        while len(self._answered) > REMEMBERED:
            self._answered.popitem(last=False)
        self._tell(request_id, answer)

    def _tell(self, request_id: str, answer: Json) -> None:
        if not self._send(answer):
            self._unsent[request_id] = answer

    def _allow(self, data: Json) -> None:
        """Nobody is asked for our tools, since they act strictly as the agent, nor for those
        that touch nothing."""
        scope, approval_id = scope_of(data), data.get("request_id")
        request = mapping(data.get("request"))
        name, subtype = request.get("tool_name"), request.get("subtype")
        if scope is None or subtype != "can_use_tool":
            return
        if not isinstance(name, str) or name not in self.unasked:
            return
        decision = {"behavior": "allow"}
        payload = {"kind": "approval_response", "request_id": approval_id, "decision": decision}
        frame: Json = {"type": "input", "request_id": f"allow:{approval_id}"}
        self._send({**frame, "runtime": scope.as_json(), "payload": payload})

    def _end(self, scope: Scope, call_id: str) -> None:
        """A call that the App Server has ended by itself is of no use any more."""
        for running in list(self._running.values()):
            if (running.scope, running.call_id) == (scope, call_id):
                running.task.cancel()


def _definition(spec: ToolSpec) -> Json:
    return {
        "name": spec.name,
        "description": spec.description,
        "parameters": dict(spec.parameters),
        "timeout_ms": LONGEST_CALL,
        "auto_background": False,
    }


def _resting(data: Json) -> Scope | None:
    """The conversation of a frame that tells that nothing runs there: so it does at once when
    anybody aborts a turn."""
    resting = mapping(data.get("loop_status")).get("status") == IDLE
    return scope_of(data) if resting else None


def _ended(data: Json) -> tuple[Scope, str] | None:
    """The conversation and the id of the call that a frame ends."""
    delta, scope = mapping(data.get("delta")), scope_of(data)
    call_id = delta.get("tool_call_id")
    if scope is None or delta.get("message_type") not in _ENDS or not isinstance(call_id, str):
        return None
    return scope, call_id
