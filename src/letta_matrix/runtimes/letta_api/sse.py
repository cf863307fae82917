"""Server-sent events as the Letta API sends them."""

from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterable
from contextlib import aclosing
from dataclasses import dataclass
from typing import cast

from letta_matrix.common import sse
from letta_matrix.common.json_fields import Json, parse_json
from letta_matrix.runtimes.faults import RuntimeUnavailable

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
    try:
        async with aclosing(sse.read_events(chunks)) as events:
            async for told in events:
                if told is None:
                    counters["malformed stream line"] += 1
                elif told[1].startswith(DONE):
                    return
                elif (event := _event(*told)) is not None:
                    yield event
                else:
                    counters["malformed stream event"] += 1
    except sse.EndlessEvent:
        text = "a stream of the Letta API held an event without end"
        raise RuntimeUnavailable(text) from None


def _event(name: str, text: str) -> StreamEvent | None:
    value = parse_json(text)
    if isinstance(value, dict):
        return StreamEvent(name, cast("Json", value))
    return StreamEvent(name, {"message": text}) if name else None
