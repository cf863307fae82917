"""What stands in a server's place: pages, redirects, halves of answers, other people's JSON."""

import asyncio
import contextlib
from dataclasses import dataclass

from aiohttp import web
from tests.fake_homeserver import Fault

MAINTENANCE = b"<!doctype html><html><body><h1>Back soon</h1></body></html>"


@dataclass(frozen=True, slots=True)
class Foreign(Fault):
    """An answer of somebody else. `announced` is how long it is said to be, if not as long as it
    is; `slowly` is the pause before each byte."""

    status: int = 200
    raw: bytes = b""
    content_type: str = "text/html"
    announced: int | None = None
    slowly: float = 0.0

    async def answer(self, http: web.Request) -> web.StreamResponse:
        headers = {"Content-Type": self.content_type, **self.headers}
        if self.announced is None and not self.slowly:
            return web.Response(status=self.status, body=self.raw, headers=headers)
        response = web.StreamResponse(status=self.status, headers=headers)
        response.content_length = self.announced or len(self.raw)
        # Who asks may have gone before it is over.
        with contextlib.suppress(ConnectionError):
            await response.prepare(http)
            for byte in self.raw:
                await response.write(bytes([byte]))
                await asyncio.sleep(self.slowly)
            if http.transport is not None:
                http.transport.close()
        return response


def page(status: int = 200, raw: bytes = MAINTENANCE) -> Foreign:
    """A proxy's page."""
    return Foreign(status, raw=raw)


def moved(to: str, status: int = 302) -> Foreign:
    """A redirect."""
    return Foreign(status, headers={"Location": to})


def json_of(raw: bytes, status: int = 200) -> Foreign:
    """JSON, or what is said to be."""
    return Foreign(status, raw=raw, content_type="application/json")


FOREIGN: dict[str, Foreign] = {
    "page": page(),
    "page as JSON": json_of(MAINTENANCE),
    "login": moved("https://sso.example.org/login?rd=x"),
    "login over http": moved("http://127.0.0.1:9/login", 307),
    "redirect to nowhere": Foreign(301),
    "not modified": Foreign(304),
    "empty": Foreign(raw=b""),
    "no content": Foreign(204),
    "empty object": json_of(b"{}"),
    "array": json_of(b"[1, 2]"),
    "null": json_of(b"null"),
    "number": json_of(b"1e999"),
    "wrong types": json_of(b'{"event_id": 7, "room_id": null, "chunk": {}, "content": []}'),
    "other JSON": json_of(b'{"status": "maintenance"}'),
    "error with 200": json_of(b'{"errcode": "M_UNKNOWN", "error": "x", "event_id": "$1"}'),
    "not an id": json_of(b'{"event_id": "maintenance", "room_id": "maintenance"}'),
    "truncated": Foreign(raw=b'{"event_id": "$1"', content_type="application/json", announced=99),
    "truncated JSON": json_of(b'{"event_id": "$1'),
    "deep": json_of(b'{"event_id":' + b"[" * 100_000),
    "not UTF-8": json_of(b'{"event_id": "\xff\xfe"}'),
    "unknown charset": Foreign(raw=b"x", content_type="text/html; charset=nonsense"),
    "not compressed": Foreign(raw=b"x", headers={"Content-Encoding": "gzip"}),
    "bad request": page(400),
    "forbidden": page(403),
    "not found": page(404),
    "teapot": json_of(b'{"error": "no"}', 418),
    "odd errcode": json_of(b'{"errcode": {}, "error": []}', 400),
    "server error": page(500),
    "gateway": page(502),
    "cloudflare": page(521),
    "too many": page(429),
}
"""By name; none is an answer to anything."""
