"""The keeper's process, which the bridge starts and which outlives it."""

import asyncio
import contextlib
import os
import signal
import time
from pathlib import Path

from letta_matrix.common.lock_files import is_held
from letta_matrix.runtimes.keeper import wire

_TIMEOUT = 5.0


class KeeperProcess:
    """The keeper as its pid file and its lock show it."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._pid_file = socket.with_name(f"{socket.name}.pid")
        self._lock_file = socket.with_name(f"{socket.name}.lock")

    def pid(self) -> int | None:
        """The running keeper, None while there is none."""
        try:
            pid = int(self._pid_file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return pid if self._runs(pid) else None

    @property
    def holds_lock(self) -> bool:
        """Whether one lives, be it in another container, where its number means nothing here. To
        be asked of one that does not answer: trying the lock could get in the way of a new one."""
        return is_held(self._lock_file)

    async def answers(self) -> bool:
        """Whether it answers within 5 s; asked as a bridge would, but beside the one it has."""
        ping = {"type": "ping"}
        try:
            async with asyncio.timeout(_TIMEOUT):
                reader, writer = await asyncio.open_unix_connection(self._socket)
                with contextlib.closing(writer):
                    writer.write(wire.pack_control(ping))
                    await wire.read_record(reader)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, ValueError):
            return False
        return True

    def kill(self, pid: int) -> None:
        """SIGKILL, if `pid` is the keeper still."""
        if self.pid() == pid:
            _signal(pid, signal.SIGKILL)

    async def end(self, timeout: float) -> None:
        """SIGTERM, and SIGKILL after `timeout` seconds."""
        pid = self.pid()
        if pid is None:
            return
        deadline = time.monotonic() + timeout
        _signal(pid, signal.SIGTERM)
        while self._runs(pid):
            if time.monotonic() > deadline:
                _signal(pid, signal.SIGKILL)
                return
            await asyncio.sleep(0.05)

    def _runs(self, pid: int) -> bool:
        """Whether the process lives and is a keeper: a pid file may be older than the machine's
        last start, and its number may belong to somebody else by now; a lock ends with its
        holder."""
        # The lock second: trying it where no keeper lives could get in the way of a new one.
        return _lives(pid) and is_held(self._lock_file)


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _lives(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, 0)
        return True
    return False
