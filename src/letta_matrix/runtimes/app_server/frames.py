"""App Server frames: building those we send, reading fields of those we get.

The protocol is that of `letta server` (Letta Code 0.34, protocol version 1).
"""

import json
import re
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

Json = dict[str, Any]

MUTED = ('{"type":"update_device_status"', '{"type":"update_subagent_state"')
"""Frames nobody here reads, large and frequent; the keeper drops them unseen."""
TRANSIENT = ('{"type":"agent_list_response"', '{"type":"conversation_messages_list_response"')
"""Answers to polling, of no use after the asker is gone."""

MAX_ERROR = 300
_GONE = re.compile(r"Conversation \S+ not found")
_STATUS = re.compile(r"(\d{3}):\s*(\{.*\})", re.DOTALL)


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
    try:
        data = json.loads(text)
    except ValueError:
        return None
    return cast("Json", data) if isinstance(data, dict) else None


def scope_of(data: Json) -> Scope | None:
    """The conversation a frame belongs to; approval requests name it at the top level."""
    place = data.get("runtime") or data
    if not isinstance(place, dict):
        return None
    place = cast("Json", place)
    agent_id, conversation_id = place.get("agent_id"), place.get("conversation_id")
    if isinstance(agent_id, str) and isinstance(conversation_id, str):
        return Scope(agent_id, conversation_id)
    return None


def text_of(content: object) -> str:
    """The text of a message's content, a string or a list of parts."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    return "".join(str(part.get("text") or "") for part in as_list(cast("object", content)))


def as_dict(value: object) -> Json:
    return cast("Json", value) if isinstance(value, dict) else {}


def as_list(value: object) -> list[Json]:
    if not isinstance(value, list):
        return []
    return [cast("Json", item) for item in cast("list[object]", value) if isinstance(item, dict)]


def as_texts(value: object) -> list[str]:
    if not isinstance(value, list):
        return []
    return [item for item in cast("list[object]", value) if isinstance(item, str)]


def id_of(item: Json) -> str:
    """The item's id, "" if it has none."""
    found = item.get("id")
    return found if isinstance(found, str) else ""


def is_gone(error: str) -> bool:
    """Whether an error says that its conversation does not exist."""
    return _GONE.fullmatch(error) is not None


def error_line(error: object) -> str:
    """One line for a person out of an error that may be JSON within JSON."""
    text = str(error or "").strip()
    status = ""
    for _ in range(4):
        if match := _STATUS.fullmatch(text):
            status, text = match[1], match[2]
        inner = _inner_error(text)
        if inner is None:
            break
        text = inner
    line = text.splitlines()[0].strip() if text else "the App Server gave no reason"
    if status:
        line = f"the model provider answered HTTP {status}: {line}"
    return line[:MAX_ERROR]


def _inner_error(text: str) -> str | None:
    try:
        value: object = json.loads(text)
    except ValueError:
        return None
    while isinstance(value, dict):
        fields = cast("Json", value)
        value = fields.get("error") or fields.get("detail") or fields.get("message")
    return value.strip() if isinstance(value, str) and value.strip() != text else None
