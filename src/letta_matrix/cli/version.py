"""`letta-matrix --version`."""

from typing import Annotated

import typer

from letta_matrix import __version__


def register(app: typer.Typer) -> None:
    """Add the option, which stands before any command."""
    app.callback()(_options)


def _show(wanted: bool) -> None:
    if wanted:
        print(f"letta-matrix {__version__}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=_show),
    ] = False,
) -> None:
    """Gives every Letta agent a life of its own on Matrix."""
