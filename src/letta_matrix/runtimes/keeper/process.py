"""The keeper as a process: its socket, its lock, its end."""

import argparse
import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from letta_matrix.common.lock_files import lock
from letta_matrix.common.log_files import keep_small
from letta_matrix.runtimes.keeper.secret import secret_at
from letta_matrix.runtimes.keeper.server import Keeper

DEFAULT_IDLE = 600.0
DEFAULT_BUFFER = 32 * 1024 * 1024


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a keeper until SIGTERM, or until no bridge was attached for `--idle` seconds.

    Returns 0 also when another keeper already serves the socket.
    """
    options = _parser().parse_args(arguments)
    os.umask(0o177)
    socket: Path = options.socket
    with contextlib.ExitStack() as stack:
        held = lock(socket.with_name(socket.name + ".lock"))
        if held is None:
            return 0
        stack.enter_context(held)
        pid = socket.with_name(socket.name + ".pid")
        pid.write_text(str(os.getpid()))
        socket.unlink(missing_ok=True)
        stack.callback(pid.unlink, missing_ok=True)
        stack.callback(socket.unlink, missing_ok=True)
        asyncio.run(_run(socket, options.idle, options.buffer))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="letta-matrix keeper", description=__doc__)
    parser.add_argument("--socket", type=Path, required=True, help="the Unix socket to serve")
    parser.add_argument(
        "--idle", type=float, default=DEFAULT_IDLE, help="seconds without a bridge before it ends"
    )
    parser.add_argument(
        "--buffer", type=int, default=DEFAULT_BUFFER, help="bytes of frames it keeps at most"
    )
    return parser


async def _run(socket: Path, idle: float, buffer: int) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    await keep(socket, idle, buffer, ended)


async def keep(socket: Path, idle: float, buffer: int, ended: asyncio.Event) -> None:
    """Serve the socket until `ended` is set; `idle` seconds without a bridge set it too."""
    loop = asyncio.get_running_loop()
    timer = loop.call_later(idle, ended.set)

    def idle_changed(alone: bool) -> None:
        nonlocal timer
        timer.cancel()
        if alone:
            timer = loop.call_later(idle, ended.set)

    keeper = Keeper(buffer, idle_changed, ended.set, secret_at(socket))
    server = await asyncio.start_unix_server(keeper.serve, socket)
    # Its own, since nobody else lives as long.
    written = socket.with_name(socket.name + ".log")
    log = asyncio.create_task(keep_small(written, _complain))
    try:
        await ended.wait()
    finally:
        log.cancel()
        server.close()
        await keeper.close()


def _complain(trouble: str) -> None:
    print(trouble, file=sys.stderr, flush=True)  # noqa: T201 - which is its log
