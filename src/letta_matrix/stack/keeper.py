"""The keeper's process, which the bridge starts and which outlives it."""

import asyncio
import contextlib
import os
import signal
import time
from pathlib import Path


class KeeperProcess:
    """The keeper as its pid file shows it."""

    def __init__(self, socket: Path) -> None:
        self._pid_file = socket.with_name(f"{socket.name}.pid")

    def pid(self) -> int | None:
        """The running keeper, None while there is none."""
        try:
            pid = int(self._pid_file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return pid if _is_keeper(pid) else None

    async def end(self, timeout: float) -> None:
        """SIGTERM, and SIGKILL after `timeout` seconds."""
        pid = self.pid()
        if pid is None:
            return
        deadline = time.monotonic() + timeout
        _signal(pid, signal.SIGTERM)
        while _is_keeper(pid):
            if time.monotonic() > deadline:
                _signal(pid, signal.SIGKILL)
                return
            await asyncio.sleep(0.05)


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _is_keeper(pid: int) -> bool:
    """Whether the process lives and is a keeper: a pid file may be older than the machine's
    last start, and its number may belong to somebody else by now."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, PermissionError):
        return False
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return not Path("/proc/self").exists()  # no /proc here: the pid file must do
    return b"keeper" in command  # empty for a zombie
