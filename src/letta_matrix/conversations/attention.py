"""Read receipt and typing while an agent works."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import structlog
from mautrix.errors import MatrixRequestError

from letta_matrix.matrix.homeserver import HomeserverUnavailable
from letta_matrix.matrix.intent import Intent

log = structlog.get_logger()

_DELAY = 0.1
"""Seconds before anything is shown: a reply that is there by then says it better, and the
homeserver is spared two requests."""

_TYPING_MS = 30_000
_REFRESH = 20.0


@asynccontextmanager
async def attention(
    intent: Intent, room_id: str, event_id: str, background: set[asyncio.Task[None]]
) -> AsyncGenerator[None]:
    """Show the event as read and the agent as typing until the block ends.

    Nothing here delays or fails the block; the task stays in `background` until it has tidied up.
    """
    done = asyncio.Event()
    task = asyncio.create_task(_show(intent, room_id, event_id, done))
    background.add(task)
    task.add_done_callback(background.discard)
    try:
        yield
    finally:
        done.set()


async def _show(intent: Intent, room_id: str, event_id: str, done: asyncio.Event) -> None:
    if await _is_set(done, _DELAY):
        return
    try:
        await asyncio.gather(
            intent.read_receipt(room_id, event_id), _type_until(intent, room_id, done)
        )
    except (MatrixRequestError, HomeserverUnavailable) as error:
        log.debug("receipt or typing not shown", room=room_id, reason=str(error))


async def _type_until(intent: Intent, room_id: str, done: asyncio.Event) -> None:
    while not done.is_set():
        await intent.typing(room_id, _TYPING_MS)
        await _is_set(done, _REFRESH)
    await intent.typing(room_id, 0)


async def _is_set(event: asyncio.Event, within: float) -> bool:
    try:
        async with asyncio.timeout(within):
            await event.wait()
    except TimeoutError:
        return False
    return True
