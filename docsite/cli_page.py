"""The commands of `letta-matrix` with their options."""

from collections.abc import Iterator
from typing import Any

import typer

from docsite.markdown import code, page, sentence, table
from letta_matrix.cli.commands import app

TITLE = "Command line"
_HELP = "--help"

Command = Any
"""Of Typer's own copy of click, which has no public types."""


def text() -> str:
    """The page."""
    program = typer.main.get_command(app)
    return page(
        TITLE,
        "In the project's folder the program is `.venv/bin/letta-matrix`. Each command has "
        "`-h` and `--help`. The exit status is 0 when all is well, 1 for a failure, 2 for wrong "
        "arguments or a wrong configuration.",
        *_parts(program, "letta-matrix", None),
    )


def _parts(command: Command, name: str, parent: Any) -> Iterator[str]:
    context = command.context_class(command, info_name=name.rsplit(" ", 1)[-1], parent=parent)
    commands: dict[str, Command] = getattr(command, "commands", {})
    yield f"## `{name}`"
    yield sentence(command.help or "")
    if not commands:
        usage = command.get_usage(context).removeprefix("Usage: ")
        yield f"```text\n{' '.join(usage.split())}\n```"
    taken = [_row(one, context) for one in command.get_params(context) if _HELP not in one.opts]
    if rows := [row for row in taken if row is not None]:
        yield table(("option", "what it is"), rows)
    for sub, one in commands.items():
        if not one.hidden:
            yield from _parts(one, f"{name} {sub}", context)


def _row(parameter: Any, context: Any) -> tuple[str, str] | None:
    record = parameter.get_help_record(context)
    if record is None:
        return None
    written, said = record
    return code(written), said
