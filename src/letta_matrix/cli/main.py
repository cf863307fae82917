"""`letta-matrix`: the commands a person types. Each imports what it needs when it runs."""

import os
import sys
from collections.abc import Mapping

import typer

from letta_matrix.cli import (
    chat,
    forget,
    import_mappings,
    init,
    keeper,
    link,
    mappings,
    mcp,
    moving,
    overview,
    rotate,
    run,
    sms,
    tokens,
    version,
)
from letta_matrix.cli.backup import command as backup
from letta_matrix.cli.doctor import command as doctor
from letta_matrix.cli.faults import BadInput, Failure
from letta_matrix.cli.up import command as up

_BAD_INPUT = {
    "letta_matrix.config.faults": "ConfigError",
    "letta_matrix.access.grants": "BadGrant",
}
_FAILURES = {
    "letta_matrix.cli.backup.faults": "BackupError",
    "letta_matrix.stack.errors": "StackError",
    "letta_matrix.store.database": "StoreError",
    "letta_matrix.common.connections.listening": "PortTakenError",
}

app = typer.Typer(
    name="letta-matrix",
    help="Gives every Letta agent a life of its own on Matrix.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.callback()(version.options)
for name, run_it in {
    "up": up.up,
    "run": run.run,
    "init": init.init,
    "chat": chat.chat,
    "link": link.link,
    "agents": overview.agents,
    "status": overview.status,
    "doctor": doctor.doctor,
    "export-mappings": mappings.export_mappings,
    "import-mappings": import_mappings.import_mappings,
    "forget": forget.forget,
    "backup": backup.backup,
    "restore": backup.restore,
    "rotate-tokens": rotate.rotate_tokens,
    "mcp": mcp.mcp,
    "keeper": keeper.keeper,
}.items():
    app.command(name)(run_it)
app.add_typer(tokens.commands, name="tokens")
app.add_typer(sms.commands, name="sms")
app.add_typer(moving.commands, name="database")


def main() -> None:
    """Run the program; faults are one line, exit status 2 for bad input, 1 for failures."""
    # Whatever this program and its children write is for its user alone.
    os.umask(0o077)
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        status = exit_status(error)
        if status is None:
            raise
        print(f"letta-matrix: {error}", file=sys.stderr)
        sys.exit(status)


def exit_status(error: Exception) -> int | None:
    """The exit status for a fault that a person can act on; None for a defect of ours."""
    if isinstance(error, (BadInput, *_loaded(_BAD_INPUT))):
        return 2
    return 1 if isinstance(error, (Failure, *_loaded(_FAILURES))) else None


def _loaded(faults: Mapping[str, str]) -> list[type[Exception]]:
    """The fault classes that can have been raised: those whose modules are loaded."""
    return [
        getattr(sys.modules[name], kind) for name, kind in faults.items() if name in sys.modules
    ]
