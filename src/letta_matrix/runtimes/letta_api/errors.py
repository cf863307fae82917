"""What the Letta API's refusals mean, as the faults every adapter raises."""

import math
from collections.abc import Mapping
from typing import cast

from letta_matrix.runtimes.protocol import (
    AgentGone,
    ConversationGone,
    CredentialsRefused,
    RateLimited,
    RuntimeBusy,
    RuntimeFault,
    RuntimeRefused,
    RuntimeUnavailable,
)

MAX_REASON = 300
_REASON_FIELDS = ("message", "detail", "error", "msg", "reason")
_MAX_DEPTH = 4


class NotStreamable(RuntimeRefused):
    """A run exists perhaps, but its stream cannot be had: expired, or kept nowhere."""


def reason_of(body: object, depth: int = 0) -> str:
    """The first line of what an error's body says; "" if it says nothing."""
    if isinstance(body, str):
        line = body.strip().splitlines()[0] if body.strip() else ""
        return "" if line.startswith("<") else line[:MAX_REASON]
    if depth == _MAX_DEPTH:
        return ""
    if isinstance(body, list):
        return next((reason_of(item, depth + 1) for item in cast("list[object]", body)), "")
    if isinstance(body, dict):
        fields = cast("dict[str, object]", body)
        told = (reason_of(fields.get(name), depth + 1) for name in _REASON_FIELDS)
        return next((reason for reason in told if reason), "")
    return ""


def fault_of(place: str, status: int, body: object, headers: Mapping[str, str]) -> RuntimeFault:
    """The fault for an answer with an HTTP error; `place` names the server in its text."""
    reason = reason_of(body)
    said = f": {reason}" if reason else ""
    if status in (401, 403):
        said = f"{place} does not accept the API key (HTTP {status}): set a valid `api_key`"
        return CredentialsRefused(said)
    if status == 404:
        return _missing(place, reason)
    if status == 409:
        return RuntimeBusy(f"{place} is busy with this conversation{said}")
    if status == 429:
        return RateLimited(f"{place} takes no more requests for now", _seconds(headers))
    if status == 503 and "redis" in reason.lower():
        return NotStreamable(f"{place} cannot run turns in the background: it has no Redis")
    if status in (408, 425) or status >= 500:
        return RuntimeUnavailable(f"{place} failed (HTTP {status}){said}")
    return RuntimeRefused(f"{place} refused (HTTP {status}){said}")


def _missing(place: str, reason: str) -> RuntimeRefused:
    lowered = reason.lower()
    if "conversation" in lowered or "conv-" in lowered:
        return ConversationGone(f"{place} no longer has the conversation")
    if "agent" in lowered:
        return AgentGone(f"{place} no longer has the agent")
    return RuntimeRefused(f"{place} does not have what was asked for{': ' * bool(reason)}{reason}")


def _seconds(headers: Mapping[str, str]) -> float:
    """The pause that `Retry-After` asks for; 0 for a date or nonsense."""
    try:
        seconds = float(headers.get("retry-after", ""))
    except ValueError:
        return 0.0
    return max(0.0, seconds) if math.isfinite(seconds) else 0.0
