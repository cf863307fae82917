"""What went wrong at an endpoint, in the terms of the protocol."""

import openai

from letta_matrix.common.json_fields import mapping
from letta_matrix.runtimes.error_lines import (
    TOO_LARGE,
    error_line,
    foreign,
    is_foreign,
    retry_after,
)
from letta_matrix.runtimes.faults import (
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


def fault_of(error: openai.APIStatusError, name: str, key: str) -> RuntimeFault:
    """The exception for an HTTP error; RuntimeUnavailable where trying again can help."""
    status, reason = error.status_code, reason_of(error, key)
    code = mapping(error.body).get("code")
    if 300 <= status < 400 or is_page(error):
        return foreign(name, status, error.response.headers)
    if status in (401, 403):
        return CredentialsRefused(
            f"{name} answered HTTP {status}: it does not accept the `api_key` of this runtime"
        )
    if status == 404 and code == "model_not_found":
        return AgentGone(f"{name} no longer has this agent: {reason}")
    if status == 409:
        return RuntimeBusy(f"{name} is busy with this conversation: {reason}")
    if status == 429 and code != "insufficient_quota":
        pause = retry_after(error.response.headers)
        return RateLimited(f"{name} takes no more requests now: {reason}", pause)
    if status in _UNCLEAR or status in (503, 529):
        return RuntimeUnavailable(f"{name} answered HTTP {status}: {reason}")
    return RuntimeRefused(f"{name} answered HTTP {status}: {reason}")


def is_page(error: openai.APIStatusError) -> bool:
    """Whether somebody else has answered in the endpoint's place."""
    return is_foreign(error.status_code, error.response.headers, error.response.content)


def was_not_taken(error: openai.APIStatusError | openai.APIConnectionError) -> bool:
    """Whether a request that failed with this has certainly reached no agent."""
    if isinstance(error, openai.APIStatusError):
        # Of what a proxy passes on it may say the rest itself.
        fails = error.status_code >= 500 and error.status_code != 503
        return error.status_code not in _UNCLEAR and not (fails and is_page(error))
    return type(error.__cause__).__name__ in _UNSENT


def is_gone(error: openai.APIError) -> bool:
    """Whether nobody was reached at the address, or a proxy there said so: the endpoint's process
    may have been gone."""
    if isinstance(error, openai.APIStatusError):
        return error.status_code in (502, 503, 504)
    return type(error.__cause__).__name__ in _UNSENT


def reason_of(error: openai.APIError, key: str) -> str:
    """The endpoint's own words in one line, without our key."""
    words = mapping(error.body).get("message")
    if not words and isinstance(error, openai.APIStatusError):
        words = TOO_LARGE.get(error.status_code)
    return error_line(words or error.message, key)
