"""Server-sent events as the Letta API sends them (HTML Standard, section 9.2)."""

from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterable
from dataclasses import dataclass
from typing import cast

from letta_matrix.common.json_fields import Json, parse_json
from letta_matrix.runtimes.faults import RuntimeUnavailable

MAX_EVENT = 16 * 1024 * 1024
"""Bytes that one line of a stream, or the data of one event, may have."""
_LINE_COST = 64
"""Bytes that a line takes in memory beside its text, even an empty one."""
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
    name, data, size = "", list[str](), 0
    async for line in _lines(chunks):
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            name = value
        elif field == "data":
            data.append(value)
            size += len(value) + _LINE_COST
            if size > MAX_EVENT:
                raise _endless()
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
            name, data, size = "", [], 0


def _event(name: str, text: str) -> StreamEvent | None:
    value = parse_json(text)
    if isinstance(value, dict):
        return StreamEvent(name, cast("Json", value))
    return StreamEvent(name, {"message": text}) if name else None


async def _lines(chunks: AsyncIterable[bytes]) -> AsyncGenerator[str]:
    """Split at line feeds alone: JSON may hold what `str.splitlines` also splits at."""
    rest = bytearray()
    async for chunk in chunks:
        first, *more = chunk.split(b"\n")
        rest += first
        for following in more:
            yield _text(rest)
            rest = bytearray(following)
        if len(rest) > MAX_EVENT:
            raise _endless()


def _text(line: bytearray) -> str:
    return line.removesuffix(b"\r").decode(errors="replace")


def _endless() -> RuntimeUnavailable:
    return RuntimeUnavailable("a stream of the Letta API held an event without end")
