"""What went wrong at an endpoint, in the terms of the protocol."""

import math
from typing import cast

import openai

from letta_matrix.runtimes.error_lines import error_line
from letta_matrix.runtimes.json_fields import as_dict
from letta_matrix.runtimes.protocol import (
    AgentGone,
    CredentialsRefused,
    RateLimited,
    RuntimeBusy,
    RuntimeFault,
    RuntimeRefused,
    RuntimeUnavailable,
)

_UNCLEAR = (408, 502, 504)
"""Statuses of a proxy that gave up: the endpoint may have taken the request."""
_UNSENT = ("ConnectError", "ConnectTimeout", "PoolTimeout")
"""Causes of a connection error before anything was sent; which HTTP client raises them depends
on the version of `openai`."""


def fault_of(error: openai.APIStatusError, name: str) -> RuntimeFault:
    """The exception for an HTTP error; RuntimeUnavailable where trying again can help."""
    status, reason = error.status_code, reason_of(error)
    code = as_dict(error.body).get("code")
    if status in (401, 403):
        return CredentialsRefused(
            f"{name} answered HTTP {status}: it does not accept the `api_key` of this runtime"
        )
    if status == 404 and code == "model_not_found":
        return AgentGone(f"{name} no longer has this agent: {reason}")
    if status == 409:
        return RuntimeBusy(f"{name} is busy with this conversation: {reason}")
    if status == 429 and code != "insufficient_quota":
        return RateLimited(f"{name} takes no more requests now: {reason}", _retry_after(error))
    if status in _UNCLEAR or status in (503, 529):
        return RuntimeUnavailable(f"{name} answered HTTP {status}: {reason}")
    return RuntimeRefused(f"{name} answered HTTP {status}: {reason}")


def was_not_taken(error: openai.APIStatusError | openai.APIConnectionError) -> bool:
    """Whether a request that failed with this has certainly reached no agent."""
    if isinstance(error, openai.APIStatusError):
        return error.status_code not in _UNCLEAR
    return type(error.__cause__).__name__ in _UNSENT


def is_gone(error: BaseException | None) -> bool:
    """Whether nobody listened at the address, or a proxy there said so: the endpoint's process
    was gone."""
    if error is None or isinstance(error, ConnectionRefusedError):
        return error is not None
    if isinstance(error, openai.APIStatusError):
        return error.status_code in (502, 503)
    if isinstance(error, ExceptionGroup):
        inner = cast("ExceptionGroup[Exception]", error).exceptions
        return any(is_gone(one) for one in inner)
    return is_gone(error.__cause__ or error.__context__)


def reason_of(error: openai.APIError) -> str:
    """The endpoint's own words in one line."""
    return error_line(as_dict(error.body).get("message") or error.message)


def _retry_after(error: openai.APIStatusError) -> float:
    try:
        seconds = float(error.response.headers.get("retry-after", "0"))
    except ValueError:
        return 0.0
    return seconds if math.isfinite(seconds) and seconds > 0 else 0.0
