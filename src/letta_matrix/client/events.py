"""Server-sent events (WHATWG HTML, section 9.2), as the API streams answers."""

import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

import aiohttp


@dataclass(frozen=True, slots=True)
class StreamEvent:
    """One event: `name` is `accepted`, `text`, `done` or `error`; `data` is its JSON."""

    name: str
    data: dict[str, Any]


async def events_of(response: aiohttp.ClientResponse) -> AsyncGenerator[StreamEvent]:
    """The events of a stream, until it ends."""
    name, lines = "", list[str]()
    async for raw in response.content:
        line = raw.decode().rstrip("\r\n")
        if line.startswith("event:"):
            name = line[6:].strip()
        elif line.startswith("data:"):
            lines.append(line[5:].removeprefix(" "))
        elif not line and lines:
            yield StreamEvent(name, json.loads("\n".join(lines)))
            name, lines = "", []
