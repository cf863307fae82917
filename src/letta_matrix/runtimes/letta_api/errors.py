"""What the Letta API's refusals mean, as the faults every adapter raises."""

import re
from collections.abc import Mapping
from typing import cast

from letta_matrix.runtimes.error_lines import TOO_LARGE, first_line, retry_after
from letta_matrix.runtimes.faults import (
    AgentGone,
    ConversationGone,
    CredentialsRefused,
    RateLimited,
    RuntimeBusy,
    RuntimeFault,
    RuntimeRefused,
    RuntimeUnavailable,
)

_REASON_FIELDS = ("message", "detail", "error", "msg", "reason")
_MAX_DEPTH = 4
_PENDING = re.compile(r"PENDING_APPROVAL|waiting for approval", re.IGNORECASE)


class NotStreamable(RuntimeRefused):
    """A run exists perhaps, but its stream cannot be had: expired, or kept nowhere."""


class NotReached(RuntimeUnavailable):
    """No connection came about: nothing was sent."""


class ApprovalPending(RuntimeBusy):
    """A tool call in the conversation waits for an answer; until then it takes no message."""


def reason_of(body: object, *secrets: str) -> str:
    """The first line of what an error's body says, without `secrets`; "" if it says nothing."""
    reason = _reason(body, 0)
    return "" if reason.startswith("<") else first_line(reason, *secrets)


def _reason(body: object, depth: int) -> str:
    if isinstance(body, str):
        return body.strip()
    if depth == _MAX_DEPTH:
        return ""
    if isinstance(body, list):
        return next((_reason(item, depth + 1) for item in cast("list[object]", body)), "")
    if isinstance(body, dict):
        fields = cast("dict[str, object]", body)
        told = (_reason(fields.get(name), depth + 1) for name in _REASON_FIELDS)
        return next((reason for reason in told if reason), "")
    return ""


def tells_of_approval(body: object, depth: int = 0) -> bool:
    """Whether an error says that a tool call waits for an answer."""
    if isinstance(body, str):
        return _PENDING.search(body) is not None
    if depth == _MAX_DEPTH:
        return False
    inner = list(cast("dict[str, object]", body).values()) if isinstance(body, dict) else body
    told = cast("list[object]", inner) if isinstance(inner, list) else []
    return any(tells_of_approval(item, depth + 1) for item in told)


def fault_of(
    place: str, status: int, body: object, headers: Mapping[str, str], *secrets: str
) -> RuntimeFault:
    """The fault for an answer with an HTTP error; `place` names the server in its
    text, which holds none of `secrets`."""
    reason = reason_of(body, *secrets) or TOO_LARGE.get(status, "")
    said = f": {reason}" if reason else ""
    if status in (401, 403):
        said = f"{place} does not accept the API key (HTTP {status}): set a valid `api_key`"
        return CredentialsRefused(said)
    if status == 404:
        return _missing(place, reason)
    if status == 409:
        kind = ApprovalPending if tells_of_approval(body) else RuntimeBusy
        return kind(f"{place} is busy with this conversation{said}")
    if status == 429:
        return RateLimited(f"{place} takes no more requests for now", retry_after(headers))
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
