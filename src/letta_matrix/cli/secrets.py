"""Secrets that a person gives to a command: in a file or a variable, not in what `ps` shows."""

from pathlib import Path

import typer

from letta_matrix.cli.faults import BadInput
from letta_matrix.cli.options import text_in
from letta_matrix.common.addresses import names_user


def secret_in(file: Path) -> str:
    """The one line that `file` holds.

    Raises:
        BadInput: it cannot be read, or holds nothing that could be sent as a secret.
    """
    try:
        secret = text_in(file).strip()
    except UnicodeError:
        secret = ""
    if not secret or not secret.isascii() or not secret.isprintable():
        raise BadInput(f"{file}: expected one line with the secret and nothing else")
    return secret


def is_typed(context: typer.Context, parameter: str) -> bool:
    """Whether an option was given on the command line, not by its variable."""
    source = context.get_parameter_source(parameter)
    return source is not None and source.name == "COMMANDLINE"


def without_password(url: str, instead: str) -> str:
    """`url`, which has no user name or password.

    Raises:
        BadInput: it has; `instead` says where that belongs.
    """
    if names_user(url):
        raise BadInput(f"an address should have no user name or password: {instead}")
    return url
