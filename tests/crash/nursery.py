"""Where bridges come from: a process that has imported everything and forks for each."""

import asyncio
import json
import signal
import sys
from asyncio.subprocess import PIPE, Process
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from letta_matrix.stack.supervisor import kill_group

CHECKOUT = Path(__file__).parents[2]


@dataclass
class Born:
    """A bridge process; `code` ends with it."""

    pid: int
    code: asyncio.Task[int]


@dataclass
class Nursery:
    """Bears one bridge at a time; see launcher.py."""

    _process: Process | None = None

    async def __aenter__(self) -> Self:
        argv = (sys.executable, "-m", "tests.crash.launcher")
        self._process = await asyncio.create_subprocess_exec(
            *argv, stdin=PIPE, stdout=PIPE, cwd=CHECKOUT, start_new_session=True
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        await self._process.communicate()

    async def bear(self, config: Path, log: Path) -> Born:
        """A new bridge, whose predecessor has ended."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([str(config), str(log)]).encode() + b"\n")
        pid = await self._number()
        return Born(pid, asyncio.create_task(self._ended(pid)))

    async def _ended(self, pid: int) -> int:
        code = await self._number()
        kill_group(pid)
        return code

    async def _number(self) -> int:
        assert self._process is not None
        assert self._process.stdout is not None
        return int(await self._process.stdout.readline())
