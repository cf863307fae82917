"""Server-sent events as they are read (HTML Standard, section 9.2)."""

from collections.abc import AsyncGenerator, AsyncIterable

MAX_EVENT = 16 * 1024 * 1024
"""Bytes that one line of a stream, or the data of one event, may have."""
_LINE_COST = 64
"""Bytes that a line takes in memory beside its text, even an empty one."""
_FIELDS = ("event", "data", "id", "retry", "")


class EndlessEvent(Exception):
    """A stream holds an event without end."""


async def read_events(chunks: AsyncIterable[bytes]) -> AsyncGenerator[tuple[str, str] | None]:
    """The events of a stream, each its name ("" for a message) and its data; None for a line that
    is of none. Raises EndlessEvent."""
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
                raise EndlessEvent
        elif line and field not in _FIELDS:
            yield None
        elif not line and data:
            yield name, "\n".join(data)
            name, data, size = "", [], 0


async def _lines(chunks: AsyncIterable[bytes]) -> AsyncGenerator[str]:
    """Split at line feeds alone: JSON may hold what `str.splitlines` also splits at."""
    rest = bytearray()
    async for chunk in chunks:
        first, *more = chunk.split(b"\n")
        rest += first
        for following in more:
            yield rest.removesuffix(b"\r").decode(errors="replace")
            rest = bytearray(following)
        if len(rest) > MAX_EVENT:
            raise EndlessEvent
