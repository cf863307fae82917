"""`letta-matrix run`."""

import asyncio
import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from letta_matrix.cli.options import ConfigOption, config_path, warn

if TYPE_CHECKING:
    from letta_matrix.config import Config

MigrateOption = Annotated[
    bool,
    typer.Option(
        "--migrate",
        help="Change a PostgreSQL database to the newest schema though replicas of an earlier "
        "version run.",
    ),
]


def run(config: ConfigOption = None, migrate: MigrateOption = False) -> None:
    """Run the bridge against your own homeserver and runtimes."""
    # What is imported stays: looking for garbage in it would be a fifth of a start's work.
    gc.disable()
    from letta_matrix.app import bridge
    from letta_matrix.cli.backup.unfinished import check_whole
    from letta_matrix.config import load_config
    from letta_matrix.config.original import replaced
    from letta_matrix.stack.data import check_folders

    gc.enable()
    path = config_path(config)
    check_whole(path)
    settings = load_config(path)
    for line in replaced(os.environ):
        warn(line)
    if settings.agents.dev_mode:
        warn(
            "DEV_MODE: every agent's account has the password `password`; never beyond this machine"
            if settings.agents.passwords
            else "DEV_MODE has no effect: agents have no passwords (agents.passwords)"
        )
    check_folders(_folders(settings), warn)
    asyncio.run(bridge.run(settings, migrates=migrate))


def _folders(config: "Config") -> Iterator[Path]:
    """Where the bridge keeps files."""
    from letta_matrix.store.database import database_url, file_of

    yield config.directory
    if (file := file_of(database_url(config.database.url, config.directory))) is not None:
        yield file.parent
    for runtime in config.runtimes:
        if runtime.type == "app_server" and runtime.keeper is None:
            yield config.path(runtime.keeper_socket).parent
