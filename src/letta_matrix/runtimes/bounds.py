"""How much a server may answer: what it says is held in memory until it is whole."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from letta_matrix.runtimes.faults import RuntimeUnavailable

LARGEST = 64 * 1024 * 1024
"""Bytes of an answer, of one event of a stream, or of a frame."""
_BLANK_LINES = (b"\n\n", b"\r\n\r\n", b"\r\r")
_LONGEST_BLANK = 4


async def bound(response: Any) -> None:
    """Let no more be read of a response of `httpx` (its "Event Hooks"), compressed or not:
    RuntimeUnavailable is raised instead."""
    read = response.aiter_bytes
    is_stream = "text/event-stream" in response.headers.get("content-type", "")

    async def bounded(chunk_size: int | None = None) -> AsyncGenerator[bytes]:
        size, before = 0, b""
        async with aclosing(read(chunk_size)) as chunks:
            async for chunk in chunks:
                size += len(chunk)
                if is_stream:
                    seen = before + chunk
                    behind = [len(seen) - at for at in map(seen.rfind, _BLANK_LINES) if at >= 0]
                    size, before = min([size, *behind]), seen[1 - _LONGEST_BLANK :]
                if size > LARGEST:
                    raise RuntimeUnavailable("what it answers has no end")
                yield chunk

    response.aiter_bytes = bounded
