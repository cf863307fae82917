"""`letta-matrix keeper`: what the bridge starts by itself."""

import sys

import typer


def register(app: typer.Typer) -> None:
    """Add the command, hidden: people need not know it."""
    settings = {"allow_extra_args": True, "ignore_unknown_options": True}
    app.command("keeper", hidden=True, context_settings=settings, add_help_option=False)(keeper)


def keeper(context: typer.Context) -> None:
    """Hold the connections to the App Servers."""
    from letta_matrix.runtimes.keeper.process import main

    sys.exit(main(context.args))
