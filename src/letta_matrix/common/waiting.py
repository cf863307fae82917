"""Waiting for things that may not happen."""

import asyncio


async def is_set(event: asyncio.Event, within: float) -> bool:
    """Whether `event` is set, waiting for it `within` seconds at most."""
    try:
        async with asyncio.timeout(max(within, 0.0)):
            await event.wait()
    except TimeoutError:
        return False
    return True
