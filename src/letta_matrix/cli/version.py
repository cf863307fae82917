"""`letta-matrix --version`."""

from typing import Annotated

import typer

from letta_matrix import __version__


def _show(wanted: bool) -> None:
    if wanted:
        print(f"letta-matrix {__version__}")
        raise typer.Exit


def options(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=_show),
    ] = False,
) -> None:
    """Gives every Letta agent a life of its own on Matrix."""
