"""Copies of what others write to meanwhile: databases by SQLite's online backup, files as they were
at one moment."""

import os
import shutil
import sqlite3
import stat
import tempfile
from collections.abc import Generator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from letta_matrix.cli.backup.faults import BackupError

_IN_MEMORY = 8_000_000
"""Bytes of a copied file; larger ones are put onto the disk."""
_BLOCK = 1_000_000
_TRIES = 4
_SQLITE = b"SQLite format 3\0"
_PATIENCE = 30.0
"""Seconds that a database may be locked."""


def is_database(content: BinaryIO) -> bool:
    """Whether a file, open at its beginning, is one of SQLite's; it is left there."""
    head = content.read(len(_SQLITE))
    content.seek(0)
    return head == _SQLITE


def copy_database(source: Path, target: Path) -> None:
    """Copy a database as it is at one moment, whoever writes to it (SQLite, "Online Backup API"),
    and look at the copy.

    Raises:
        BackupError: it cannot be read, or is damaged.
    """
    try:
        with (
            closing(sqlite3.connect(_uri(source, "ro"), uri=True, timeout=_PATIENCE)) as original,
            closing(sqlite3.connect(target)) as copy,
        ):
            # All in one step: between steps others would write, and it would begin anew.
            original.backup(copy)
            # One file, without a log beside it.
            copy.execute("PRAGMA journal_mode=DELETE").fetchone()
    except sqlite3.Error as error:
        raise BackupError(f"{source}: the database cannot be copied: {error}") from None
    check_database(target, source)


def copy_apart(name: str, folder: int, target: Path) -> None:
    """Copy the database `name` in an open `folder` of somebody who may put a link in its place at
    any moment: SQLite, which would follow that, opens what lies beside `target` alone.

    Raises:
        BackupError: it cannot be read, or is damaged.
        OSError: it is gone.
    """
    with tempfile.TemporaryDirectory(dir=target.parent) as own:
        apart = Path(own, "database")
        before, tries = None, 0
        # What is written from its log into it meanwhile would be in neither copy.
        while (now := _moment(name, folder)) != before and tries < _TRIES:
            before, tries = now, tries + 1
            for suffix in ("", "-wal"):
                with (
                    steady(name + suffix, folder, target.parent) as copied,
                    apart.with_name(apart.name + suffix).open("wb") as file,
                ):
                    if copied is not None:
                        shutil.copyfileobj(copied.content, file, _BLOCK)
        copy_database(apart, target)


def check_database(path: Path, named: Path | str = "") -> None:
    """Look at every page of a database, which nobody has open. Raises BackupError; `named` is what
    it is called then."""
    try:
        with closing(sqlite3.connect(_uri(path, "ro"), uri=True)) as database:
            found = str(database.execute("PRAGMA integrity_check(1)").fetchone()[0])
    except sqlite3.Error as error:
        found = str(error)
    if found != "ok":
        raise BackupError(f"{named or path}: the database is damaged ({' '.join(found.split())})")


@dataclass(frozen=True, slots=True)
class Copied:
    """What a file held at one moment."""

    content: BinaryIO
    size: int
    mode: int


@contextmanager
def steady(name: str, folder: int, beside: Path) -> Generator[Copied | None]:
    """A copy of the file `name` in an open `folder`, None where there is none; links are not
    followed. What is written to meanwhile is read again, a few times. Large copies lie in the
    folder `beside` meanwhile. Raises OSError."""
    with tempfile.SpooledTemporaryFile(_IN_MEMORY, dir=str(beside)) as spool:
        mode, is_steady, tries = 0, False, 0
        while not is_steady and tries < _TRIES:
            spool.seek(0)
            spool.truncate()
            try:
                mode, is_steady = _copy(name, folder, cast("BinaryIO", spool))
            except FileNotFoundError:
                yield None
                return
            tries += 1
        size = spool.tell()
        spool.seek(0)
        yield Copied(cast("BinaryIO", spool), size, mode)


def _copy(name: str, folder: int, target: BinaryIO) -> tuple[int, bool]:
    """The file's mode, and whether nobody wrote to it while it was read."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with os.fdopen(os.open(name, flags, dir_fd=folder), "rb") as file:
        before = os.fstat(file.fileno())
        if not stat.S_ISREG(before.st_mode):
            raise FileNotFoundError
        shutil.copyfileobj(file, target, _BLOCK)
        after = os.fstat(file.fileno())
    was, now = (before.st_size, before.st_mtime_ns), (after.st_size, after.st_mtime_ns)
    return stat.S_IMODE(after.st_mode), was == now


def _moment(name: str, folder: int) -> tuple[int, int, int]:
    """What is another number as soon as somebody writes to a file."""
    status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    return status.st_ino, status.st_size, status.st_mtime_ns


def _uri(path: Path, mode: str) -> str:
    return f"{path.absolute().as_uri()}?mode={mode}"
