"""Server-sent events (HTML, Server-sent events) as a response."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing

import structlog
from fastapi.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

log = structlog.get_logger()

STREAM = "text/event-stream"

_PATIENCE = 30.0
"""Seconds that a client may take to make room for the next event."""


class _NotRead(Exception):
    """The client has not read for so long."""


class EventStream(StreamingResponse):
    """Sends `events` as they come, and gives a client up that does not read them."""

    media_type = STREAM

    def __init__(self, events: AsyncGenerator[bytes]) -> None:
        super().__init__(events, headers={"X-Accel-Buffering": "no"})
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def timely(message: Message) -> None:
            try:
                async with asyncio.timeout(_PATIENCE):
                    await send(message)
            except TimeoutError as error:
                raise _NotRead from error

        async with aclosing(self._events):
            try:
                await super().__call__(scope, receive, timely)
            except _NotRead:
                log.info("a client was given up that does not read its events")


def event(name: str, data: object) -> bytes:
    """An event with its data as JSON."""
    return framed(name, json.dumps(data, ensure_ascii=False).encode("utf-8", "replace"))


def framed(name: str, data: bytes) -> bytes:
    """An event; its data is JSON, which has no line ends."""
    return b"event: %s\ndata: %s\n\n" % (name.encode(), data)
