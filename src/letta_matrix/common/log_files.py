"""Logs that running processes append to, which do not grow without end."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

MOST = 10_000_000
"""Bytes of a log; what is beyond is moved to `.1`, in place of what was there."""

_LOOKS = 10.0
"""Seconds between looks at how large a log has become."""
_PIECE = 1_000_000


def size(log: Path) -> int:
    """Its bytes, 0 where there is none."""
    return log.stat().st_size if log.is_file() else 0


def put_away(log: Path) -> None:
    """Move a log that is too large, before somebody opens it. Raises OSError."""
    if size(log) > MOST:
        log.replace(_before(log))


async def keep_small(log: Path, tell: Callable[[str], None]) -> None:
    """Look after a log for ever; `tell` is told once why one cannot be kept."""
    said = ""
    while True:
        await asyncio.sleep(_LOOKS)
        try:
            await asyncio.to_thread(_empty, log)
        except OSError as error:
            if said != str(error):
                tell(f"{log} grows, and is not kept: {error}")
            said = str(error)


def _empty(log: Path) -> None:
    """Move what was written, if it is much. Who has it open appends, and goes on at the beginning
    of the empty file."""
    if size(log) <= MOST:
        return
    try:
        with log.open("rb") as old, _before(log).open("wb") as kept:
            while piece := old.read(_PIECE):
                kept.write(piece)
    finally:
        os.truncate(log, 0)


def _before(log: Path) -> Path:
    return log.with_name(f"{log.name}.1")
