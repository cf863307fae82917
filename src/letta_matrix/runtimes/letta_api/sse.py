"""Server-sent events as the Letta API sends them (HTML Standard, section 9.2)."""

import json
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterable
from dataclasses import dataclass
from typing import cast

from letta_matrix.runtimes.json_fields import Json
from letta_matrix.runtimes.protocol import RuntimeUnavailable

MAX_LINE = 32 * 1024 * 1024
"""Bytes that one line of a stream may have."""
DONE = "[DONE]"


@dataclass(frozen=True, slots=True)
class StreamEvent:
    """One event: `name` is "" for a message, else the event's own, `error` for instance."""

    name: str
    data: Json


async def read_events(
    chunks: AsyncIterable[bytes], counters: Counter[str]
) -> AsyncGenerator[StreamEvent]:
    """The events of a stream up to its end or `[DONE]`; malformed ones are counted."""
    name, data = "", list[str]()
    async for line in _lines(chunks):
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            name = value
        elif field == "data":
            data.append(value)
        elif line and field not in ("", "id", "retry"):
            counters["malformed stream line"] += 1
        elif not line and data:
            text = "\n".join(data)
            if text.startswith(DONE):
                return
            if (event := _event(name, text)) is not None:
                yield event
            else:
                counters["malformed stream event"] += 1
            name, data = "", []


def _event(name: str, text: str) -> StreamEvent | None:
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError):
        value = text
    if isinstance(value, dict):
        return StreamEvent(name, cast("Json", value))
    return StreamEvent(name, {"message": str(value)}) if name else None


async def _lines(chunks: AsyncIterable[bytes]) -> AsyncGenerator[str]:
    """Split at line feeds alone: JSON may hold what `str.splitlines` also splits at."""
    rest = b""
    async for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line.removesuffix(b"\r").decode(errors="replace")
        if len(rest) > MAX_LINE:
            raise RuntimeUnavailable("a stream of the Letta API held a line without end")
