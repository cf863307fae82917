"""Whether a server that runs still answers: one that is stopped, or waits for itself, does not."""

import asyncio
from collections.abc import Awaitable, Callable

import aiohttp

from letta_matrix.common import clock

Probe = Callable[[], Awaitable[bool]]
"""Tells whether a server answers."""

_EVERY = 15.0
_TIMEOUT = 5.0
_HUNG_AFTER = 60.0
_MISSES = 3
_STARTING = 120.0
_LATE = 45.0


class Silence:
    """How long a process has not answered, as far as it was asked.

    `missed` counts only what a running machine asked: when more than 45 s lie between two looks,
    we did not run ourselves (a suspended machine), and the count starts afresh.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._began = self._looked = clock.now()
        self._answered = False
        self._misses = 0
        self._since = 0.0

    def answered(self) -> None:
        """It did."""
        self._looked = clock.now()
        self._answered, self._misses = True, 0

    def missed(self) -> bool:
        """It did not; whether it is hung: three times in a row, for a minute. One that has just
        been started has two minutes before that counts."""
        now = clock.now()
        if now - self._looked > _LATE:
            self._misses = 0
        self._looked = now
        if not self._answered and now - self._began < _STARTING:
            return False
        self._since = self._since if self._misses else now
        self._misses += 1
        return self._misses >= _MISSES and now - self._since >= _HUNG_AFTER


async def kill_hung(
    name: str,
    pid: Callable[[], int | None],
    answers: Probe,
    kill: Callable[[int], None],
    announce: Callable[[str], None],
) -> None:
    """Look every 15 s, for ever, after the process that `pid` tells (None: there is none now);
    where it is hung, say so and `kill` it."""
    silence: Silence | None = None
    while True:
        await asyncio.sleep(_EVERY)
        asked = pid()
        if asked is None:
            continue
        if silence is None or silence.pid != asked:
            silence = Silence(asked)
        if await answers():
            silence.answered()
        elif pid() == asked and silence.missed():
            announce(f"{name} hangs: process {asked} has not answered for a minute; killing it")
            kill(asked)
            silence = None


async def status_of(http: aiohttp.ClientSession, url: str) -> int | None:
    """The status with which a server answers `GET url` within 5 s; None: it does not answer."""
    try:
        async with http.get(url, timeout=aiohttp.ClientTimeout(total=_TIMEOUT)) as response:
            return response.status
    except (aiohttp.ClientError, TimeoutError):
        return None
