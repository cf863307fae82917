"""The keeper as a process: its options, its socket, its lock, its end."""

import argparse
import asyncio
import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from letta_matrix.common.lock_files import lock
from letta_matrix.common.log_files import keep_small
from letta_matrix.common.waiting import ended_by_signal
from letta_matrix.runtimes.keeper.doors import LocalDoor
from letta_matrix.runtimes.keeper.ends import IdleEnd
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
    if options.listen is not None:
        # Its log would make every keeper beside a bridge larger.
        from letta_matrix.runtimes.keeper.service import listen

        return listen(options)
    idle = DEFAULT_IDLE if options.idle is None else options.idle
    return _beside_bridge(options.socket, idle, options.buffer)


def _beside_bridge(socket: Path, idle: float, buffer: int) -> int:
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
        asyncio.run(_run(socket, idle, buffer))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="letta-matrix keeper", description=__doc__)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--socket", type=Path, help="the Unix socket to serve")
    where.add_argument("--listen", help="HOST:PORT to serve instead, for bridges elsewhere")
    parser.add_argument("--token-file", type=Path, help="a file with what bridges have to know")
    parser.add_argument("--app-server", help="the App Server of those, a WebSocket address")
    parser.add_argument("--app-server-token-file", type=Path, help="a file with its token")
    parser.add_argument("--idle", type=float, help="seconds without a bridge before it ends")
    parser.add_argument(
        "--buffer", type=int, default=DEFAULT_BUFFER, help="bytes of frames it keeps at most"
    )
    return parser


async def _run(socket: Path, idle: float, buffer: int) -> None:
    await keep(socket, idle, buffer, ended_by_signal())


async def keep(socket: Path, idle: float, buffer: int, ended: asyncio.Event) -> None:
    """Serve the socket until `ended` is set; `idle` seconds without a bridge set it too."""
    keeper = Keeper(buffer, IdleEnd(idle, ended).changed, ended.set)
    door = LocalDoor(keeper, secret_at(socket))
    server = await asyncio.start_unix_server(door.arrived, socket)
    # Its own, since nobody else lives as long.
    written = socket.with_name(socket.name + ".log")
    log = asyncio.create_task(keep_small(written, _complain))
    try:
        await ended.wait()
    finally:
        log.cancel()
        server.close()
        await door.close()
        await keeper.close()


def _complain(trouble: str) -> None:
    print(trouble, file=sys.stderr, flush=True)  # noqa: T201 - which is its log
