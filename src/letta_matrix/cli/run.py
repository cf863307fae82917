"""`letta-matrix run`."""

import asyncio

import typer

from letta_matrix.cli.options import ConfigOption, config_path


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("run")(run)


def run(config: ConfigOption = None) -> None:
    """Run the bridge against your own homeserver and runtimes."""
    from letta_matrix import bridge
    from letta_matrix.config import load_config

    asyncio.run(bridge.run(load_config(config_path(config))))
