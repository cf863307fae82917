"""Server-sent events (WHATWG HTML, section 9.2), as the API streams answers."""

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import aiohttp

from letta_matrix.common.sse import read_events


@dataclass(frozen=True, slots=True)
class StreamEvent:
    """One event: `name` is `accepted`, `text`, `approval`, `done` or `error`; `data` is its
    JSON."""

    name: str
    data: dict[str, Any]


async def events_of(response: aiohttp.ClientResponse) -> AsyncGenerator[StreamEvent]:
    """The events of a stream, until it ends."""
    async with aclosing(read_events(response.content.iter_any())) as events:
        async for told in events:
            if told is not None:
                yield StreamEvent(told[0], json.loads(told[1]))
