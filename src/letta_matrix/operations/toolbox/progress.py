"""Signs of life of calls that wait for somebody."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import structlog

from letta_matrix.common import clock
from letta_matrix.operations.toolbox.tool import Caller

log = structlog.get_logger()

_EVERY = 3.0
"""Seconds between two signs."""


@asynccontextmanager
async def telling(caller: Caller, total: float, line: str) -> AsyncGenerator[None]:
    """Tell the caller every few seconds how long of `total` seconds it has waited."""
    teller = asyncio.create_task(_tell(caller, total, line))
    try:
        yield
    finally:
        teller.cancel()
        await asyncio.wait([teller])


async def _tell(caller: Caller, total: float, line: str) -> None:
    begun = clock.now()
    while True:
        await asyncio.sleep(_EVERY)
        try:
            await caller.progress(min(clock.now() - begun, total), total, line)
        except Exception as error:  # noqa: BLE001
            # Whoever does not hear of it still gets the result.
            log.info("a caller does not hear of progress", reason=str(error))
            return
