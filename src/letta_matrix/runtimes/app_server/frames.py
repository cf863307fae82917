"""App Server frames: building those we send, reading fields of those we get.

The protocol is that of `letta server` (Letta Code 0.34, protocol version 1).
"""

import re
from dataclasses import dataclass
from typing import NamedTuple, cast

from letta_matrix.common.json_fields import Json, mapping, parse_json
from letta_matrix.runtimes.faults import (
    AgentGone,
    ConversationGone,
    RuntimeBusy,
    RuntimeFault,
    RuntimeRefused,
)

MUTED = ('{"type":"update_device_status"', '{"type":"update_subagent_state"')
"""Frames nobody here reads, large and frequent; the keeper drops them unseen."""
TRANSIENT = tuple(
    f'{{"type":"{kind}_response"'
    for kind in ("agent_list", "conversation_list", "conversation_messages_list", "list_models")
)
"""Answers to polling, of no use after the asker is gone."""
SINGLE = ('{"type":"external_tool_call_request"',)
"""Frames that come on one connection only, perhaps the spare one."""

IDLE = "WAITING_ON_INPUT"
"""The loop status of a conversation in which nothing runs."""
_NO_CONVERSATION = re.compile(r"Conversation \S+ not found|Agent agent-local-default not found")
_NO_AGENT = re.compile(r"Agent \S+ not found")
_BUSY = (
    "Input was rejected by the queue",
    "Stable input ledger is at capacity",
    "Stable input disposition could not be persisted",
    "Conversation is switching computers",
    "Runtime is no longer active",
)


class Scope(NamedTuple):
    """Where a turn runs; the App Server calls it a runtime."""

    agent_id: str
    conversation_id: str

    def as_json(self) -> Json:
        return self._asdict()


@dataclass(frozen=True, slots=True)
class ScopedFrame:
    """A frame of one conversation, with its place in the keeper's count."""

    seq: int
    generation: int
    data: Json

    @property
    def type(self) -> str:
        return str(self.data.get("type", ""))


def parse(text: bytes) -> Json | None:
    """The frame as an object, None for anything else."""
    data = parse_json(text)
    return cast("Json", data) if isinstance(data, dict) else None


def scope_of(data: Json) -> Scope | None:
    """The conversation a frame belongs to; approval requests name it at the top level."""
    place = mapping(data.get("runtime") or data)
    agent_id, conversation_id = place.get("agent_id"), place.get("conversation_id")
    if isinstance(agent_id, str) and isinstance(conversation_id, str):
        return Scope(agent_id, conversation_id)
    return None


def time_of(value: object) -> str:
    """A time of the App Server, ISO 8601 and so in order as text; "" for anything else."""
    return value if isinstance(value, str) else ""


def changed_at(conversation: Json) -> str:
    """The time by which listings are sorted, newest first."""
    times = (conversation.get(name) for name in ("last_message_at", "updated_at", "created_at"))
    return next((time for time in map(time_of, times) if time), "")


def refusal(error: str, doing: str) -> RuntimeFault:
    """The fault that an error of the App Server stands for; `doing` begins its text.

    The agent `agent-local-default` is where it looks for conversations it does not know.
    """
    reason = f"{doing}: {error}"
    if _NO_CONVERSATION.fullmatch(error):
        return ConversationGone(reason)
    if _NO_AGENT.fullmatch(error):
        return AgentGone(reason)
    if error in _BUSY:
        return RuntimeBusy(reason)
    return RuntimeRefused(reason)
