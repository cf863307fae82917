"""`letta-matrix database`: from one kind of database to another."""

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from letta_matrix.cli.faults import BadInput
from letta_matrix.cli.options import text_in

if TYPE_CHECKING:
    from sqlalchemy import URL

_VARIABLE = "LETTA_MATRIX__DATABASE__PASSWORD"
_KINDS = ("sqlite:///", "postgresql://")


commands = typer.Typer(
    help="Bring the bridge's database from SQLite to PostgreSQL, or back.", no_args_is_help=True
)


@commands.callback()
def database() -> None:
    """Bring the bridge's database from SQLite to PostgreSQL, or back."""


@commands.command("copy")
def copy(
    source: Annotated[
        str, typer.Argument(metavar="FROM", help="As in `database.url`; paths start here.")
    ],
    target: Annotated[str, typer.Argument(metavar="TO", help="The same; it has to be empty.")],
    password_file: Annotated[
        Path | None,
        typer.Option(
            help="A file with the password for PostgreSQL; without it the variable "
            f"{_VARIABLE}, else PGPASSFILE.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Copy everything that the bridge knows into an empty database. Stop the bridge before. One
    that was cut off is run again; no bridge starts on half of it."""
    from letta_matrix.app.logs import configure_logging
    from letta_matrix.config import Logging
    from letta_matrix.store.moving import move

    password = _password(password_file)
    configure_logging(Logging(level="error"), [password] if password else [])
    old, new = _address(source, password), _address(target, password)
    asyncio.run(move(old, new, lambda one: print(f"{one.table}: {one.rows} rows", flush=True)))
    print(
        f"all of it is there, row by row as in the old one. Write `database.url: {target}` into "
        "config.yaml and start the bridge; keep the old one until you have seen it run"
    )


def _password(file: Path | None) -> str:
    """Raises BadInput."""
    if file is None:
        return os.environ.get(_VARIABLE, "")
    try:
        return text_in(file).strip("\r\n")
    except UnicodeError:
        raise BadInput(f"{file}: is no text in UTF-8") from None


def _address(given: str, password: str) -> "URL":
    """Raises BadInput."""
    from letta_matrix.store.database import database_url

    if not given.startswith(_KINDS):
        raise BadInput(
            f"{given.partition(':')[0]}: give {_KINDS[0]}FILE or {_KINDS[1]}USER@HOST/DB"
        )
    try:
        url, typed = database_url(given, Path.cwd(), password), database_url(given, Path.cwd())
    except ValueError:
        raise BadInput(f"give {_KINDS[1]}USER@HOST:PORT/DB") from None
    if typed.password is not None:
        raise BadInput(
            "leave the password out of the address: others on this machine see what is typed; "
            f"give it by --password-file or {_VARIABLE}"
        )
    return url
