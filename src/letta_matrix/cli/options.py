"""Options that several commands share."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from letta_matrix.cli.faults import BadInput
from letta_matrix.common.program import starting, typed

if TYPE_CHECKING:
    from letta_matrix.config import Config

DataOption = Annotated[
    Path | None,
    typer.Option("--data", help="The folder that `up` keeps everything in.", show_default=False),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        help="The configuration; default: ./config.yaml, else the one in the --data folder.",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def above_zero(value: float | None) -> float | None:
    """What an option may have: none, or more than 0. Raises typer.BadParameter."""
    if value is not None and not value > 0:
        raise typer.BadParameter("should be above 0")
    return value


def warn(text: str) -> None:
    """Say on standard error what goes on all the same."""
    print(f"letta-matrix: warning: {text}", file=sys.stderr, flush=True)


def text_in(file: Path) -> str:
    """What a file holds, in UTF-8, without the mark that some editors put before it. Raises
    BadInput, UnicodeError."""
    try:
        return file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise BadInput(f"{file}: cannot be read: {error.strerror}") from None


def data_directory(given: Path | None) -> Path:
    """The folder of the embedded stack: as given, else the usual one."""
    from letta_matrix.stack.data import default_data_directory

    return given if given is not None else default_data_directory()


def config_path(given: Path | None, data: Path | None = None) -> Path:
    """The configuration file: as given, else that of the embedded stack in `data`; with
    neither, ./config.yaml, else that of the embedded stack in the usual folder.

    Raises:
        BadInput: both were given, or there is none anywhere.
    """
    if given is not None and data is not None:
        raise BadInput("--config and --data each name a configuration: give one of them")
    if given is not None:
        return given
    if data is not None:
        return data / "config.yaml"
    here, usual = Path("config.yaml"), data_directory(None) / "config.yaml"
    found = next((path for path in (here, usual) if path.is_file()), None)
    if found is None:
        raise BadInput(
            f"no config.yaml here and none in {usual.parent}; start `{starting()}`, write one "
            f"by `{typed(['init'])}`, or name one by --config"
        )
    return found


def settings_in(given: Path | None, data: Path | None = None) -> "Config":
    """What the configuration file says (see `config_path`). Raises BadInput, ConfigError."""
    from letta_matrix.config import load_config

    return load_config(config_path(given, data))
