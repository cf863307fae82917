"""`letta-matrix keeper`: what the bridge starts by itself, or what runs beside an App Server."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from letta_matrix.cli.options import above_zero


def keeper(
    socket: Annotated[
        Path | None, typer.Option(help="The Unix socket to serve.", show_default=False)
    ] = None,
    listen: Annotated[
        str | None,
        typer.Option(
            help="HOST:PORT to serve instead, for bridges on other machines. TLS is spoken by a "
            "proxy before it.",
            show_default=False,
        ),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(
            help="With --listen: a file, for its owner alone, with the token that bridges have to "
            "know; default: the variable LETTA_MATRIX_KEEPER_TOKEN.",
            show_default=False,
        ),
    ] = None,
    app_server: Annotated[
        str | None,
        typer.Option(
            help="With --listen: the App Server, the only one that bridges get.",
            show_default="ws://127.0.0.1:4500",
        ),
    ] = None,
    app_server_token_file: Annotated[
        Path | None,
        typer.Option(
            help="With --listen: a file with the App Server's token, if it wants one; default: the "
            "variable LETTA_MATRIX_APP_SERVER_TOKEN.",
            show_default=False,
        ),
    ] = None,
    idle: Annotated[
        float | None,
        typer.Option(
            help="Seconds without a bridge before it ends.",
            show_default="600, with --listen never",
            callback=above_zero,
        ),
    ] = None,
    buffer: Annotated[
        int | None,
        typer.Option(
            help="Bytes of frames it keeps at most.", show_default="32 MiB", callback=above_zero
        ),
    ] = None,
) -> None:
    """Hold the connections to an App Server while bridges restart or take over.

    With --socket the bridge starts it by itself; nobody needs to run that by hand. With --listen
    it is a service beside the App Server: turns in flight survive the loss of the bridge's
    machine, and another bridge goes on with them (`runtimes[].keeper` in its config.yaml).
    """
    from letta_matrix.runtimes.keeper.process import main

    given = {
        "--socket": socket,
        "--listen": listen,
        "--token-file": token_file,
        "--app-server": app_server,
        "--app-server-token-file": app_server_token_file,
        "--idle": idle,
        "--buffer": buffer,
    }
    sys.exit(main([f"{name}={value}" for name, value in given.items() if value is not None]))
