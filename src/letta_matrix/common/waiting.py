"""Waiting for things that may not happen."""

import asyncio
import signal
from collections.abc import Awaitable
from typing import Any, TypeVar

T = TypeVar("T")


def ended_by_signal(*more: signal.Signals) -> asyncio.Event:
    """What is set when somebody wants this process to end: by SIGTERM, SIGINT or one of `more`."""
    loop, wanted = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT, *more):
        loop.add_signal_handler(number, wanted.set)
    return wanted


async def is_set(event: asyncio.Event, within: float) -> bool:
    """Whether `event` is set, waiting for it `within` seconds at most."""
    try:
        async with asyncio.timeout(max(within, 0.0)):
            await event.wait()
    except TimeoutError:
        return False
    return True


async def ends_before(
    task: asyncio.Future[Any], event: asyncio.Event, within: float | None = None
) -> bool:
    """Wait until a task has ended, `event` is set, or `within` seconds have passed; whether the
    task has ended."""
    happening = asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait((task, happening), timeout=within, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await ended(happening)
    return task.done()


async def unless(
    event: asyncio.Event, work: Awaitable[T], within: float | None = None
) -> asyncio.Future[T] | None:
    """Do `work`: what it came to; None, and it is ended, where `event` is set before or `within`
    seconds have passed."""
    task = asyncio.ensure_future(work)
    try:
        return task if await ends_before(task, event, within) else None
    finally:
        await ended(task)


async def first(*waits: Awaitable[object]) -> None:
    """Wait until one of them is done; the others end."""
    tasks = [asyncio.ensure_future(one) for one in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await ended(*tasks)


async def ended(*tasks: asyncio.Future[Any]) -> None:
    """End tasks, and wait until they have ended; what they raise is no more told."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
