"""The note that stands beside a configuration while a backup takes its place there: where it is
left, some files are of the backup and others are not."""

from pathlib import Path

from letta_matrix.cli.backup.faults import BackupError
from letta_matrix.cli.backup.folders import sync
from letta_matrix.common.private_files import write_private
from letta_matrix.common.program import typed

_NOTE = "restore.unfinished"


def begin(folder: Path) -> None:
    """Note that files take their places from now on. Raises OSError."""
    write_private(folder / _NOTE, "Some files here are of a backup, others are not.\n")
    sync(folder)


def end(folder: Path) -> None:
    """All of them have, or all is as before. Raises OSError."""
    (folder / _NOTE).unlink(missing_ok=True)
    sync(folder)


def check_whole(config: Path) -> None:
    """Raises BackupError where a restore beside a configuration was cut off."""
    for folder in {config.absolute().parent, config.resolve().parent}:
        if (folder / _NOTE).exists():
            again = typed(["restore", "FILE", "-c", str(config), "--replace"])
            raise BackupError(
                f"{folder}: a restore was cut off, and some files are of the backup, others are "
                f"not: run it again (`{again}`)"
            )
