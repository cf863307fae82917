"""`letta-matrix doctor`."""

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from letta_matrix.cli.options import ConfigOption, DataOption, JsonOption, config_path

if TYPE_CHECKING:
    from letta_matrix.cli.doctor.finding import Finding
    from letta_matrix.cli.doctor.view import View


def doctor(
    config: ConfigOption = None, data: DataOption = None, as_json: JsonOption = False
) -> None:
    """Look for what is wrong with the bridge and around it, and say what to do.

    Works beside a running bridge, which is asked too, and without one. A small file is uploaded
    to the homeserver; nothing else is changed.

    Exit status: 0 nothing is wrong (warnings or not), 1 something is, 2 the configuration cannot
    be used, or something could not be looked at.
    """
    from letta_matrix.cli.doctor.finding import exit_status, trouble
    from letta_matrix.cli.doctor.view import JsonView, TerminalView
    from letta_matrix.config import ConfigError

    path = config_path(config, data)
    view = JsonView() if as_json else TerminalView()
    try:
        found = asyncio.run(_examined(path, view))
    except ConfigError as error:
        remedy = "correct it there; docs/configuration.md has every setting"
        shows = "the bridge does not start"
        view.show(trouble(str(error), remedy, shows=shows, name="configuration"))
        view.end()
        raise typer.Exit(2) from None
    view.end()
    raise typer.Exit(exit_status(found))


async def _examined(path: Path, view: "View") -> "list[Finding]":
    """Everything that was found, each shown as it comes. Raises ConfigError."""
    from letta_matrix.app.logs import silence
    from letta_matrix.cli.doctor.examination import examine
    from letta_matrix.cli.doctor.subject import Subject
    from letta_matrix.cli.overview import report_of
    from letta_matrix.config import load_config

    settings = load_config(path)
    subject = Subject(settings, path, os.environ, await report_of(settings))
    found: list[Finding] = []
    # What parts of the bridge log is told as findings.
    with silence():
        try:
            async for one in examine(subject):
                view.show(one)
                found.append(one)
        finally:
            await subject.close()
    return found
