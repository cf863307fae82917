"""What counts as an answer of the homeserver.

Anything may stand in its place: a proxy's maintenance page with a 200, a redirect to a login
page, another server, half of an answer. Only the JSON object that a request is answered with by
the specification says anything about that request.
"""

from collections.abc import Callable, Mapping
from typing import Any, cast

import aiohttp
from yarl import URL

from letta_matrix.common.json_fields import items
from letta_matrix.common.lenient_json import loads, printable

_MOST = 64 * 1024 * 1024
_CHUNK = 65_536
_LONGEST_ID = 255
_SHOWN = 60
_LONGEST_WORDS = 300
_FIELDS = 4
_MOST_PARTS = 8_000_000
"""Values in an answer: each takes up to a hundred bytes, in two or three of the answer's."""

Answer = Mapping[str, Any]
Shape = Callable[[Answer], bool]
"""Whether a JSON object is what a request is answered with."""


class ForeignAnswer(Exception):
    """What came is not the answer of a homeserver to this request; the text says what it is."""


class Redirected(ForeignAnswer):
    """Somebody in front of the homeserver sends us elsewhere."""

    def __init__(self, asked: URL, location: str) -> None:
        super().__init__(_redirection(asked, location))


async def read_body(response: aiohttp.ClientResponse) -> bytes:
    """The whole body. Raises ForeignAnswer beyond 64 MiB, aiohttp.ClientError."""
    data = bytearray()
    async for chunk in response.content.iter_chunked(_CHUNK):
        data += chunk
        if len(data) > _MOST:
            raise ForeignAnswer(f"HTTP {response.status} with more than {_MOST} bytes")
    return bytes(data)


def parsed(body: bytes) -> Answer | None:
    """A body's JSON object (see `loads`), None if it is none, or one made to fill our memory."""
    if len(body) > _MOST_PARTS and sum(map(body.count, (b"{", b"[", b","))) > _MOST_PARTS:
        return None
    try:
        answer = loads(body)
    except ValueError:
        return None
    return cast("Answer", answer) if isinstance(answer, dict) else None


def text_of(answer: Answer | None, field: str) -> str | None:
    """A field that is a text and not empty, None if there is no such."""
    value = (answer or {}).get(field)
    return value if isinstance(value, str) and value else None


def words(text: str, most: int = _LONGEST_WORDS) -> str:
    """What somebody else says, for logs, terminals and health: a line that can be printed, at
    most so many characters of it."""
    return printable(" ".join(text[: 4 * most].split())[:most])


def is_page(response: aiohttp.ClientResponse) -> bool:
    """Whether it is somebody's web page: homeservers give out nothing of others to be shown by
    browsers (spec: `Content-Disposition` of downloads)."""
    return response.content_type == "text/html" and response.content_disposition is None


def described(response: aiohttp.ClientResponse, body: bytes) -> str:
    """What came instead of an answer, in a few words for an operator."""
    start = words(body[: 4 * _SHOWN].decode(errors="replace"), _SHOWN)
    kind = response.content_type if body else "nothing in it"
    return f"HTTP {response.status} with {kind}" + (f" ({start})" if start else "")


def pause_of(response: aiohttp.ClientResponse, answer: Answer) -> float:
    """Seconds that a 429 asks us to wait (spec: Rate limiting; RFC 9110, section 10.2.3)."""
    milliseconds = answer.get("retry_after_ms")
    if isinstance(milliseconds, int | float) and milliseconds >= 0:
        return min(milliseconds / 1000, 300.0)
    told = response.headers.get("Retry-After", "")
    if told.isascii() and told.isdigit():
        return min(float(told), 300.0)
    return 1.0


def misshapen(answer: Answer) -> str:
    """What JSON came instead of an answer: the names of its first fields."""
    names = ", ".join(words(name, _SHOWN) for name in list(answer)[:_FIELDS])
    return f"HTTP 200 with other JSON than asked for ({names or 'an empty object'})"


def content(_answer: Answer) -> bool:
    """What people have written: an event's content, which may be any object."""
    return True


def done(answer: Answer) -> bool:
    """`{}`, to which later versions may add."""
    return "errcode" not in answer


def event_id(answer: Answer) -> bool:
    """The id of an event."""
    return done(answer) and _is_id(answer.get("event_id"), "$")


def room_id(answer: Answer) -> bool:
    """The id of a room."""
    return done(answer) and _is_id(answer.get("room_id"), "!")


def user_id(answer: Answer) -> bool:
    """The id of a user."""
    return done(answer) and _is_id(answer.get("user_id"), "@")


def media_uri(answer: Answer) -> bool:
    """Where a file was put."""
    return done(answer) and str(text_of(answer, "content_uri")).startswith("mxc://")


def event(answer: Answer) -> bool:
    """A whole event of a room; what it says may be anything."""
    return isinstance(answer.get("content"), dict)


def chunk(answer: Answer) -> bool:
    """A page of events."""
    found = items(answer.get("chunk")) or []
    return having("chunk", list)(answer) and all(isinstance(one, dict) for one in found)


def having(field: str, kind: type = dict) -> Shape:
    """An object in which `field` is of a JSON kind. Homeservers in Go write `null` for a list with
    nothing in it."""

    def fits(answer: Answer) -> bool:
        value = answer.get(field)
        return isinstance(value, kind) or (kind is list and value is None and field in answer)

    return fits


def _is_id(value: object, sigil: str) -> bool:
    return isinstance(value, str) and value.startswith(sigil) and 1 < len(value) <= _LONGEST_ID


def _redirection(asked: URL, location: str) -> str:
    """Where to, without what a query may tell of others."""
    try:
        to = asked.join(URL(location)).with_query(None).with_fragment(None).with_user(None)
    except ValueError:
        return "homeserver.url redirects to nowhere"
    _, api, rest = asked.path.partition("/_matrix/")
    if (base := str(to).removesuffix(api + rest)) != str(to):
        return f"homeserver.url redirects to {words(base)}: write that"
    return f"homeserver.url redirects to {words(str(to))}"
