"""One line for a person out of what a runtime or a model provider says went wrong."""

import json
import re
from typing import cast

from letta_matrix.runtimes.json_fields import Json

MAX_ERROR = 300
_STATUS = re.compile(r"(\d{3}):\s*(\{.*\})", re.DOTALL)
_PROVIDER_FAULTS = {
    "401": "the model provider does not accept its API key (HTTP 401): connect it anew",
    "403": "the model provider does not allow this (HTTP 403): check its API key",
    "429": "the model provider takes no more requests for now (HTTP 429): try again later",
}


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
    line = text.splitlines()[0].strip() if text else "no reason was given"
    if status in _PROVIDER_FAULTS:
        return _PROVIDER_FAULTS[status]
    if status:
        line = f"the model provider answered HTTP {status}: {line}"
    return line[:MAX_ERROR]


def _inner_error(text: str) -> str | None:
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError):
        return None
    while isinstance(value, dict):
        fields = cast("Json", value)
        value = fields.get("error") or fields.get("detail") or fields.get("message")
    return value.strip() if isinstance(value, str) and value.strip() != text else None
