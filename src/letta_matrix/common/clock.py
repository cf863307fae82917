"""What time it is for whatever waits or measures a span."""

import asyncio
import time

_SINCE_BOOT = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def since_boot() -> float:
    """Seconds on a clock that nobody sets, and that goes on while the machine sleeps."""
    return time.clock_gettime(_SINCE_BOOT)


def now() -> float:
    """Seconds on a clock that never goes back: the running event loop's, if there is one.

    `asyncio.sleep` and `asyncio.timeout` go by the loop's clock, so who moves that one moves
    every wait of ours along. By default both are the same clock.
    """
    try:
        return asyncio.get_running_loop().time()
    except RuntimeError:
        return time.monotonic()
