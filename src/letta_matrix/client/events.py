"""Server-sent events (WHATWG HTML, section 9.2), as the API streams answers."""

import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

import aiohttp


@dataclass(frozen=True, slots=True)
class StreamEvent:
    """One event: `name` is `accepted`, `text`, `approval`, `done` or `error`; `data` is its
    JSON."""

    name: str
    data: dict[str, Any]


async def events_of(response: aiohttp.ClientResponse) -> AsyncGenerator[StreamEvent]:
    """The events of a stream, until it ends."""
    name, lines = "", list[str]()
    async for raw in _lines(response):
        line = raw.decode().rstrip("\r")
        if line.startswith("event:"):
            name = line[6:].strip()
        elif line.startswith("data:"):
            lines.append(line[5:].removeprefix(" "))
        elif not line and lines:
            yield StreamEvent(name, json.loads("\n".join(lines)))
            name, lines = "", []


async def _lines(response: aiohttp.ClientResponse) -> AsyncGenerator[bytes]:
    """Lines of any length; aiohttp's own are bounded."""
    begun: list[bytes] = []
    async for chunk in response.content.iter_any():
        first, *rest = chunk.split(b"\n")
        begun.append(first)
        if rest:
            yield b"".join(begun)
            *whole, last = rest
            for line in whole:
                yield line
            begun = [last]
