"""What happens inside the fake Letta API: agents that obey words, and their runs."""

import asyncio
import json
import re
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, cast

from tests.steps import Steps

Json = dict[str, Any]

WORD_DELAY = 0.1
DONE = "data: [DONE]\n\n"


def now() -> str:
    return datetime.now(UTC).isoformat()


def new_id(kind: str) -> str:
    return f"{kind}-{uuid.uuid4()}"


@dataclass
class Conversation:
    """Its stored messages, the run that holds its lock, the calls that wait for approval."""

    agent_id: str
    id: str = field(default_factory=lambda: new_id("conv"))
    messages: list[Json] = field(default_factory=list[Json])
    running: "Run | None" = None
    pending: list[Json] = field(default_factory=list[Json])
    title: str | None = None

    def as_json(self) -> Json:
        return {"id": self.id, "agent_id": self.agent_id, "summary": self.title}


@dataclass
class Run:
    """A run, its stream so far, and what it will store when its step is done."""

    conversation: Conversation
    prompt: Json
    background: bool = True
    id: str = field(default_factory=lambda: new_id("run"))
    status: str = "running"
    stop_reason: str | None = None
    error: Json | None = None
    created_at: str = field(default_factory=now)
    chunks: list[str] = field(default_factory=list[str])
    messages: list[Json] = field(default_factory=list[Json])
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None
    _seq: int = 0

    @property
    def ended(self) -> bool:
        return self.status != "running"

    def as_json(self) -> Json:
        return {
            "id": self.id,
            "agent_id": self.conversation.agent_id,
            "conversation_id": self.conversation.id,
            "background": self.background,
            "status": self.status,
            "stop_reason": self.stop_reason,
            "metadata": {"error": self.error} if self.error else {},
            "created_at": self.created_at,
        }

    def emit(self, kind: str, **fields: Any) -> None:
        """Stream a message; `stop_reason` and `usage_statistics` carry no ids."""
        message: Json = {"message_type": kind, **fields}
        if kind not in ("stop_reason", "usage_statistics"):
            self._seq += 1
            message |= {"run_id": self.id, "seq_id": self._seq, "date": now()}
        self.put(f"data: {json.dumps(message, ensure_ascii=False)}\n\n")

    def put(self, chunk: str) -> None:
        self.chunks.append(chunk)
        self.changed.set()
        self.changed = asyncio.Event()

    def store(self, kind: str, message_id: str, **fields: Any) -> None:
        """Keep a message; it is listed once the step is done."""
        stored = {"id": message_id, "message_type": kind, "run_id": self.id, "date": now()}
        self.messages.append(stored | fields)

    def stop(self, reason: str, status: str = "completed") -> None:
        """End the stream, store what was said, let go of the conversation."""
        self.stop_reason, self.status = reason, status
        self.emit("stop_reason", stop_reason=reason)
        if self.error:
            self.put(f"event: error\ndata: {json.dumps(self.error)}\n\n")
        else:
            self.emit("usage_statistics", total_tokens=2, step_count=1)
        self.put(DONE)
        self.conversation.messages += self.messages
        if self.conversation.running is self:
            self.conversation.running = None


def refused_run(conversation: Conversation, prompt: Json) -> Run:
    """A background run that fails at once because a call waits for approval (src of V1)."""
    run = Run(conversation, prompt)
    run.error = {
        "message_type": "error_message",
        "run_id": run.id,
        "error_type": "internal_error",
        "message": "An unknown error occurred with the LLM streaming request.",
        "detail": "CONFLICT: Cannot send a new message: The agent is waiting for approval on a "
        "tool call. Please approve or deny the pending request before continuing.",
    }
    run.stop("error", "failed")
    return run


def seq_of(chunk: str) -> float:
    """A chunk's `seq_id`; endless if it has none."""
    match = re.search(r'"seq_id": (\d+)', chunk)
    return int(match[1]) if match else float("inf")


def message_text(content: object) -> str:
    """The text parts of a message's content."""
    if isinstance(content, str):
        return content
    parts = cast("list[Json]", content)
    return "\n".join(str(part.get("text", "")) for part in parts if part.get("type") == "text")


@dataclass
class Script:
    """Plays one run. `approvals` are the tools that ask before they run."""

    run: Run
    approvals: set[str]
    steps: Steps

    async def play(self) -> None:
        """Do what the prompt's words say (see tests/stub_model.py)."""
        try:
            if self.run.prompt.get("type") == "approval":
                await self._go_on()
            else:
                await self._answer(message_text(self.run.prompt["content"]))
        except asyncio.CancelledError:
            self.run.stop("cancelled", "cancelled")

    async def _answer(self, text: str) -> None:
        self.run.store("user_message", new_id("message"), **_prompt_fields(self.run.prompt))
        if re.search(r"\bhang\b", text):
            await asyncio.sleep(3600)
        if match := re.search(r"\berror:(\d{3})", text):
            self._fail(match[1])
        elif wanted := re.findall(r"tool:(\w+):(.+)", text):
            self._call_tools(wanted)
        else:
            if "think" in text:
                self._think("hm, hm")
            await self._say(_words(text), WORD_DELAY if "slow:" in text else 0)
            self.run.stop("end_turn")

    def _fail(self, code: str) -> None:
        self.run.error = {
            "message_type": "error_message",
            "run_id": self.run.id,
            "error_type": "llm_error",
            "message": "An error occurred with the LLM request.",
            "detail": f"HTTP {code}",
        }
        self.run.stop("llm_api_error", "failed")

    def _think(self, text: str) -> None:
        message_id = new_id("message")
        self.run.emit("reasoning_message", id=message_id, reasoning=text)
        self.run.store("reasoning_message", message_id, reasoning=text)

    async def _say(self, words: list[str], delay: float) -> None:
        message_id = new_id("message")
        for place, word in enumerate(words):
            await self.steps.reach(message_text(self.run.prompt["content"]), place)
            self.run.emit("assistant_message", id=message_id, content=word)
            await asyncio.sleep(delay)
        self.run.store("assistant_message", message_id, content="".join(words))

    def _call_tools(self, wanted: list[tuple[str, str]]) -> None:
        """Call tools at once; those that ask hold up the others."""
        calls = [_new_call(name, argument.strip()) for name, argument in wanted]
        asking = [call for call in calls if call["name"] in self.approvals]
        for call in calls:
            asks = call in asking
            self._announce("approval_request_message" if asks else "tool_call_message", call)
        if asking:
            self.run.conversation.pending = asking
            self.run.stop("requires_approval")
            return
        for call in calls:
            self._return(call, "success", _output(call))
        self._conclude(_output(calls[-1]))

    def _announce(self, kind: str, call: Json) -> None:
        """Stream a call in two pieces, and keep it whole."""
        message_id, text = new_id("message"), str(call["arguments"])
        for part in (text[: len(text) // 2], text[len(text) // 2 :]):
            piece = {**call, "arguments": part}
            self.run.emit(kind, id=message_id, tool_call=piece, tool_calls=piece)
        self.run.store(kind, message_id, tool_call=call, tool_calls=[call])

    async def _go_on(self) -> None:
        answers = {item["tool_call_id"]: item for item in self.run.prompt["approvals"]}
        given = list(answers.values())
        # A V1 server keeps no otid of an approval.
        self.run.store("approval_response_message", new_id("message"), approvals=given)
        output = ""
        for call in self.run.conversation.pending:
            answer = answers[call["tool_call_id"]]
            reason = answer.get("reason") or "None given"
            denied = f"Error: request to call tool denied. User reason: {reason}"
            output = _output(call) if answer["approve"] else denied
            self._return(call, "success" if answer["approve"] else "error", output)
        self.run.conversation.pending = []
        await asyncio.sleep(0)
        self._conclude(output)

    def _return(self, call: Json, status: str, output: str) -> None:
        result = {"tool_call_id": call["tool_call_id"], "status": status, "tool_return": output}
        message_id = new_id("message")
        fields = {**result, "tool_returns": [result]}
        self.run.emit("tool_return_message", id=message_id, **fields)
        self.run.store("tool_return_message", message_id, **fields)

    def _conclude(self, output: str) -> None:
        message_id = new_id("message")
        self.run.emit("assistant_message", id=message_id, content=f"tool said: {output}")
        self.run.store("assistant_message", message_id, content=f"tool said: {output}")
        self.run.stop("end_turn")


def _prompt_fields(prompt: Json) -> Json:
    return {"content": prompt["content"], "otid": prompt.get("otid")}


def _new_call(name: str, argument: str) -> Json:
    arguments = json.dumps({"command": argument}) if name == "Bash" else argument
    return {"name": name, "arguments": arguments, "tool_call_id": new_id("call")}


def _words(text: str) -> list[str]:
    slow = re.search(r"\bslow:(\d+)", text)
    if count := int(slow[1]) if slow else Steps.asked_for(text):
        return [f"word{number} " for number in range(1, count + 1)]
    return ["echo: ", text]


def _output(call: Json) -> str:
    if call["name"] == "Bash":
        command = str(json.loads(call["arguments"])["command"])
        return command.removeprefix("echo ") if command.startswith("echo ") else f"ran {command}"
    return f"{call['name']} was called with {call['arguments']}"
