"""`letta-matrix`: how the program begins and ends."""

import os
import sys
from collections.abc import Mapping

from letta_matrix.cli.faults import BadInput, Failure

_BAD_INPUT = {
    "letta_matrix.config.faults": "ConfigError",
    "letta_matrix.access.grants": "BadGrant",
    "letta_matrix.stack.errors": "BadFlagError",
}
_FAILURES = {
    "letta_matrix.cli.backup.faults": "BackupError",
    "letta_matrix.stack.errors": "StackError",
    "letta_matrix.store.database": "StoreError",
    "letta_matrix.common.connections.listening": "PortTakenError",
    "letta_matrix.common.private_files": "UnwritableError",
}


def main() -> None:
    """Run the program; faults are one line, exit status 2 for bad input, 1 for failures, 130 for
    Ctrl-C, whenever it comes."""
    # Whatever this program and its children write is for its user alone.
    os.umask(0o077)
    try:
        # Most of the time before a command runs: Ctrl-C may well come while it lasts.
        from letta_matrix.cli.commands import app

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
