"""Folders: where a backup is made or laid before anything gets its name, and names that survive a
power cut."""

import contextlib
import os
import secrets
import shutil
from collections.abc import Generator
from pathlib import Path

from letta_matrix.cli.backup.faults import BackupError
from letta_matrix.common.lock_files import lock

_STAGING = ".letta-staging-"
_LOCK = "backup.lock"


@contextlib.contextmanager
def staging(folder: Path) -> Generator[Path]:
    """A folder that nobody else may read, in the file system of `folder`; one at a time. Raises
    BackupError."""
    try:
        (folder / _LOCK).touch(0o600)
        held = lock(folder / _LOCK)
    except OSError as error:
        raise BackupError(f"{folder}: nothing can be put there: {error.strerror}") from None
    if held is None:
        raise BackupError(f"another backup of {folder} is being taken, or put back")
    with held:
        # Of those whose process was killed. Somebody's file may be called so as well.
        for left in folder.glob(f"{_STAGING}*"):
            if left.is_dir() and not left.is_symlink():
                shutil.rmtree(left)
        made = folder / f"{_STAGING}{secrets.token_hex(4)}"
        made.mkdir(mode=0o700)
        try:
            yield made
        finally:
            shutil.rmtree(made)


@contextlib.contextmanager
def opened(folder: Path) -> Generator[int]:
    """A descriptor of a folder. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def sync(folder: Path) -> None:
    """Let the names in a folder survive a power cut. Raises OSError."""
    with opened(folder) as descriptor:
        os.fsync(descriptor)
