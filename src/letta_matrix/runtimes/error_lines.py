"""What a runtime or a model provider says went wrong: one line for a person, and the pause that
it asks for."""

import math
import re
from collections.abc import Mapping
from typing import cast

from letta_matrix.common.json_fields import mapping, parse_json
from letta_matrix.common.lenient_json import printable, whole_text
from letta_matrix.runtimes.faults import RateLimited, RuntimeUnavailable

MAX_ERROR = 300
MAX_PAUSE = 300.0
"""Seconds: a longer `Retry-After` is no reason to leave a person without an answer for longer."""
TOO_LARGE: Mapping[int, str] = dict.fromkeys(
    (413, 414, 431), "the message is too large for it, or for a proxy before it"
)
"""Statuses that are about one request, whoever answers: tried again, it is as large."""
_NO_PATH = (404, 405)
_STATUS = re.compile(r"(\d{3}):\s*(\{.*\})", re.DOTALL)
_PROVIDER_FAULTS = {
    "401": "the model provider does not accept its API key (HTTP 401): connect it anew",
    "403": "the model provider does not allow this (HTTP 403): check its API key",
    "429": "the model provider takes no more requests for now (HTTP 429): try again later",
}


def error_line(error: object, *secrets: str) -> str:
    """One line for a person out of an error that may be JSON within JSON, without `secrets`."""
    text = str(error or "").strip()
    status = ""
    for _ in range(4):
        if match := _STATUS.fullmatch(text):
            status, text = match[1], match[2]
        inner = _inner_error(text)
        if inner is None:
            break
        text = inner
    if status in _PROVIDER_FAULTS:
        return _PROVIDER_FAULTS[status]
    prefix = f"the model provider answered HTTP {status}: " if status else ""
    return first_line(f"{prefix}{text or 'no reason was given'}", *secrets)


def first_line(text: str, *secrets: str) -> str:
    """A text's first line without `secrets`, at most `MAX_ERROR` characters of it."""
    line, _, _ = text.strip().partition("\n")
    return printable(whole_text(scrubbed(line.strip(), *secrets))[:MAX_ERROR])


def scrubbed(text: str, *secrets: str) -> str:
    """The text with `***` in place of every secret. To be done before the text is cut: a part
    of a secret would not be known as one."""
    for secret in filter(None, secrets):
        text = text.replace(secret, "***")
    return text


def retry_after(headers: Mapping[str, str]) -> float:
    """The seconds that `Retry-After` asks for (RFC 9110, section 10.2.3), at most `MAX_PAUSE`;
    0 for a date or nonsense. `headers` must know the name in lower case."""
    try:
        seconds = float(headers.get("retry-after", ""))
    except ValueError:
        return 0.0
    return min(max(0.0, seconds), MAX_PAUSE) if math.isfinite(seconds) else 0.0


def is_foreign(status: int, headers: Mapping[str, str], body: bytes) -> bool:
    """Whether an HTTP error is a proxy's, or of another server, and says nothing about what was
    asked: a page, nothing at all, or a path that is not there. `headers` as above."""
    if status in TOO_LARGE or isinstance(parse_json(body), dict | list):
        return False
    is_page = "html" in headers.get("content-type", "")
    return is_page or not body.strip() or status in _NO_PATH


def foreign(place: str, status: int, headers: Mapping[str, str]) -> RuntimeUnavailable:
    """The fault for an answer of somebody else in the place of the server that `place` names.
    `headers` as above."""
    if status == 429:
        return RateLimited(f"{place} takes no more requests for now", retry_after(headers))
    if 300 <= status < 400:
        return RuntimeUnavailable(
            f"{place} answers with a redirect (HTTP {status}); set `url` to where it leads"
        )
    return RuntimeUnavailable(
        f"{place} is not there: what answers is another server, or a proxy's page (HTTP "
        f"{status}); does `url` lead to it?"
    )


def _inner_error(text: str) -> str | None:
    value = parse_json(text)
    while isinstance(value, dict):
        fields = mapping(cast("object", value))
        value = fields.get("error") or fields.get("detail") or fields.get("message")
    return value.strip() if isinstance(value, str) and value.strip() != text else None
