"""Whether a server that runs still answers: one that is stopped, or waits for itself, does not."""

import asyncio
from collections.abc import Awaitable, Callable

import aiohttp

from letta_matrix.common import clock
from letta_matrix.common.connections.socket_table import processes, stat_of

Probe = Callable[[], Awaitable[bool]]
"""Tells whether a server answers."""

Work = Callable[[int], list[str]]
"""What a process has worked so far; nothing: that is not known, or it works or is about to."""

_EVERY = 5.0
_TIMEOUT = 5.0
_HUNG_AFTER = 60.0
_IDLE_AFTER = 15.0
_MISSES = 3
_STARTING = 120.0
_LATE = 45.0
_STATE, _SESSION, _TIMES = 0, 3, slice(11, 13)
"""Where proc_pid_stat(5) has a process's state, its session, and its time on the CPU."""
_AT_WORK = "RD"


def work_of(pid: int) -> list[str]:
    """The time that a process, and those that it has started, have spent on the CPU; nothing where
    one is on a CPU, wants one or waits for a disk, and where the system does not tell."""
    worked = list[str]()
    for number in processes():
        try:
            fields = stat_of(number)
        except OSError:
            continue  # ended meanwhile
        if number == pid or fields[_SESSION] == str(pid):
            if fields[_STATE] in _AT_WORK:
                return []
            worked.append(f"{number} {fields[_TIMES]}")
    return worked


class Silence:
    """How long a process has not answered, as far as it was asked.

    `missed` counts only what a running machine asked: when more than 45 s lie between two looks,
    we did not run ourselves (a suspended machine), and the count starts afresh.
    """

    def __init__(self, pid: int, work: Work = work_of) -> None:
        self.pid = pid
        self._work = work
        self._worked = list[str]()
        self._began = self._looked = clock.now()
        self._answered = False
        self._misses = 0
        self._since = 0.0

    def answered(self) -> None:
        """It did."""
        self._looked = clock.now()
        self._answered, self._misses = True, 0

    def missed(self) -> bool:
        """It did not; whether it is hung: three times in a row, for a minute, or for 15 s in which
        it did nothing at all. One that has just been started has two minutes before that counts."""
        now = clock.now()
        if now - self._looked > _LATE:
            self._misses = 0
        self._looked = now
        if not self._answered and now - self._began < _STARTING:
            return False
        if not self._misses:
            self._since, self._worked = now, self._work(self.pid)
        self._misses += 1
        worked = self._work(self.pid)
        limit = _IDLE_AFTER if worked and worked == self._worked else _HUNG_AFTER
        return self._misses >= _MISSES and now - self._since >= limit


async def kill_hung(
    name: str,
    pid: Callable[[], int | None],
    answers: Probe,
    kill: Callable[[int], None],
    announce: Callable[[str], None],
) -> None:
    """Look every 5 s, for ever, after the process that `pid` tells (None: there is none now);
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
            announce(f"{name} hangs: process {asked} does not answer any more; killing it")
            kill(asked)
            silence = None


async def status_of(http: aiohttp.ClientSession, url: str) -> int | None:
    """The status with which a server answers `GET url` within 5 s; None: it does not answer."""
    try:
        async with http.get(url, timeout=aiohttp.ClientTimeout(total=_TIMEOUT)) as response:
            return response.status
    except (aiohttp.ClientError, TimeoutError):
        return None
