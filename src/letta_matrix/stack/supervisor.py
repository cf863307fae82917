"""Supervised child processes: started, watched, started again, ended.

Every child leads its own process group, so that a Ctrl-C in the terminal reaches
us alone and a child's own children end with it. On Linux the kernel ends the
children should we be killed.
"""

import asyncio
import contextlib
import ctypes
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from letta_matrix.common import clock, log_files
from letta_matrix.common.connections.inherited import handed_down
from letta_matrix.common.tasks import Tasks
from letta_matrix.common.waiting import unless
from letta_matrix.stack.errors import StackError
from letta_matrix.stack.silence import Probe, kill_hung

Announce = Callable[[str], None]
"""Shows one line to the person at the terminal."""

_PAUSES = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 10.0)
_STEADY_AFTER = 30.0
_FAILURES_BEFORE_READY = 3
_QUOTED_BYTES = 16_384
_FAULT = re.compile(r"\b(?:\w+(?:Error|Exception)|Error):\s*\S|\b(?:ERROR|CRITICAL|FATAL)\b")
"""The line of a log that says what went wrong: an exception's, or one of that level."""

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)


def pause_before(restart: int) -> float:
    """Seconds to wait before the `restart`-th start in a row (0: the first one again)."""
    return _PAUSES[min(restart, len(_PAUSES) - 1)]


@dataclass(frozen=True, slots=True)
class Command:
    """What to run, where its output goes, and the listening sockets, by address, that it gets."""

    name: str
    argv: Sequence[str]
    log: Path
    cwd: Path
    env: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    sockets: Mapping[str, Sequence[socket.socket]] = field(
        default_factory=dict[str, Sequence[socket.socket]]
    )


class Child:
    """One supervised process; `start` it, and it runs until `terminate`."""

    def __init__(
        self, command: Command, announce: Announce, on_pid: Callable[[int], None] | None = None
    ) -> None:
        self.command = command
        self._announce = announce
        self._on_pid = on_pid
        self._process: asyncio.subprocess.Process | None = None
        self._tasks = Tasks()
        self._stopping = False
        self._ready = False
        self._failures = 0
        self._log_began = 0
        self._gave_up = asyncio.Event()
        self._answers: Probe | None = None

    @property
    def pid(self) -> int | None:
        """The running process, None while there is none."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    async def start(self) -> None:
        """Start the process and watch it from now on.

        Raises:
            StackError: the program cannot be run.
        """
        self._log_began = log_files.size(self.command.log)
        await self._spawn()
        self._tasks.start(self._watch())
        self._tasks.start(log_files.keep_small(self.command.log, self._announce))

    def look_after(self, answers: Probe) -> None:
        """From now on kill it when it hangs: it is started again like one that ended."""
        self._answers = answers
        name = self.command.name
        self._tasks.start(kill_hung(name, lambda: self.pid, answers, kill_group, self._announce))

    async def wait_ready(self, probe: Probe, timeout: float) -> None:
        """Wait until `probe` says yes; asked every 50 ms.

        Raises:
            StackError: it kept ending, or was not ready within `timeout` seconds.
        """
        if await unless(self._gave_up, self._until_answers(probe), timeout) is None:
            raise StackError(self._why_not_ready(None if self._gave_up.is_set() else timeout))
        self._ready = True

    def terminate(self) -> None:
        """Ask the process to end and do not start it again."""
        self._stopping = True
        self._signal(signal.SIGTERM)

    async def wait_ended(self, timeout: float) -> None:
        """Wait for the end asked for by `terminate`; after `timeout` seconds SIGKILL."""
        process = self._process
        if process is not None:
            try:
                await asyncio.wait_for(process.wait(), timeout)
            except TimeoutError:
                self._signal(signal.SIGKILL)
                await process.wait()
            kill_group(process.pid)
        await self._tasks.cancel()

    async def _until_answers(self, probe: Probe) -> None:
        while True:
            asked = self.pid
            # An answer while ours ends is somebody else's.
            if await probe() and asked is not None and self.pid == asked:
                return
            await asyncio.sleep(0.05)

    async def _watch(self) -> None:
        restarts = 0
        while (process := self._process) is not None:
            started = clock.now()
            async with self._telling_when_up(again=restarts > 0):
                code = await process.wait()
            kill_group(process.pid)
            restarts = 0 if clock.now() - started >= _STEADY_AFTER else restarts
            while self._process is process:
                if self._stopping or self._failed_for_good():
                    return
                await self._again(code, pause_before(restarts))
                restarts += 1

    async def _again(self, code: int, pause: float) -> None:
        later = f"in {pause:g} s" if pause else "now"
        self._announce(f"{self.command.name} ended ({ending(code)}); starting it again {later}")
        await asyncio.sleep(pause)
        if not self._stopping:
            try:
                await self._spawn()
            except StackError as error:
                self._announce(str(error))
            except OSError as error:  # `on_pid`: the child runs all the same
                self._announce(f"{self.command.name} runs, but cannot be noted: {error}")

    @contextlib.asynccontextmanager
    async def _telling_when_up(self, *, again: bool) -> AsyncGenerator[None]:
        """Meanwhile say so once a process that was started again answers."""
        telling = asyncio.create_task(self._tell_when_up()) if again else None
        try:
            yield
        finally:
            if telling is not None:
                telling.cancel()

    async def _tell_when_up(self) -> None:
        if self._answers is not None:
            began = clock.now()
            await self._until_answers(self._answers)
            self._announce(f"{self.command.name} is up again ({clock.now() - began:.1f} s)")

    def _failed_for_good(self) -> bool:
        if self._ready:
            return False
        self._failures += 1
        if self._failures < _FAILURES_BEFORE_READY:
            return False
        self._gave_up.set()
        return True

    async def _spawn(self) -> None:
        try:
            self._process = await _start(self.command)
        except OSError as error:
            what = error.filename or self.command.argv[0]
            raise StackError(
                f"{self.command.name} cannot be started: {what}: {error.strerror}"
            ) from None
        if self._on_pid is not None:
            self._on_pid(self._process.pid)

    def _signal(self, number: signal.Signals) -> None:
        if (pid := self.pid) is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, number)

    def _why_not_ready(self, timeout: float | None) -> str:
        what = "keeps ending" if timeout is None else f"did not answer within {timeout:g} s"
        said = _last_words(self.command.log, self._log_began)
        return f"{self.command.name} {what}; its log {self.command.log} says: {said}"


def ending(code: int) -> str:
    """An exit status for people: `exit status 1`, `SIGKILL`."""
    if code >= 0:
        return f"exit status {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def kill_group(pid: int) -> None:
    """SIGKILL whatever is left of the process group that `pid` led."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


async def _start(command: Command) -> asyncio.subprocess.Process:
    command.log.parent.mkdir(parents=True, exist_ok=True)
    log_files.put_away(command.log)
    with command.log.open("ab") as log:
        return await asyncio.create_subprocess_exec(
            *command.argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=command.cwd,
            env={**command.env, **handed_down(command.sockets)},
            pass_fds=[one.fileno() for some in command.sockets.values() for one in some],
            start_new_session=True,
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,
        )


def _die_with_parent() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _last_words(log: Path, began: int) -> str:
    """The last line written since the log was `began` bytes long that tells of a fault, else
    the last one with words in it."""
    size = log_files.size(log)
    with log.open("rb") as file:
        file.seek(max(began if began <= size else 0, size - _QUOTED_BYTES))
        lines = file.read().decode(errors="replace").split("\n")
    said = [line.strip() for line in lines if any(map(str.isalnum, line))]
    faults = [line for line in said if _FAULT.search(line)]
    return (faults or said or ["(nothing)"])[-1][:300]
