"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

DataOption = Annotated[
    Path | None,
    typer.Option("--data", help="The folder that `up` keeps everything in.", show_default=False),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        help="The configuration; default: ./config.yaml, else the one that `up` wrote.",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def data_directory(given: Path | None) -> Path:
    """The folder of the embedded stack: as given, else the usual one."""
    from letta_matrix.stack.data import default_data_directory

    return given if given is not None else default_data_directory()


def config_path(given: Path | None) -> Path:
    """The configuration file: as given, else ./config.yaml, else that of the embedded stack."""
    if given is not None:
        return given
    here = Path("config.yaml")
    usual = data_directory(None) / "config.yaml"
    return usual if usual.is_file() and not here.is_file() else here
