"""`letta-matrix keeper`: what the bridge starts by itself."""

import sys
from pathlib import Path
from typing import Annotated

import typer


def keeper(
    socket: Annotated[Path, typer.Option(help="The Unix socket to serve.", show_default=False)],
    idle: Annotated[
        float | None,
        typer.Option(help="Seconds without a bridge before it ends.", show_default="600"),
    ] = None,
    buffer: Annotated[
        int | None,
        typer.Option(help="Bytes of frames it keeps at most.", show_default="32 MiB"),
    ] = None,
) -> None:
    """Hold the connections to the App Servers while the bridge restarts.

    The bridge starts it by itself and finds it by its socket; nobody needs to run it by
    hand. Turns in flight survive a bridge that crashed or is being upgraded; without a
    bridge the keeper ends after a while.
    """
    from letta_matrix.stack.keeper import keep

    given = {"--socket": socket, "--idle": idle, "--buffer": buffer}
    sys.exit(keep([f"{name}={value}" for name, value in given.items() if value is not None]))
