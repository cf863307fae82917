"""A look at the database's files before they are used: at what is broken, and at what is missing.

SQLite takes what it finds. A log (`-wal`) that is damaged it reads up to the damage, and forgets
the rest, which had been committed.
"""

import sqlite3
import struct
from contextlib import closing
from pathlib import Path

from letta_matrix.store.faults import StoreDamaged, damaged, fault_of

_WHOLE = 100_000_000
"""Bytes up to which every page is looked at: about 0.15 s. Of larger ones only after an end that
was none: a gigabyte takes 1.5 s."""
_HEADER = 48
_FRAMES = struct.Struct("=12xB3xI")


def check(path: Path, *, pages: bool = True) -> None:
    """Look at the database at `path`, of which nothing is changed, and at its `pages` one by one.

    Raises:
        StoreDamaged: it is damaged, or is none.
        StoreUnavailable: it cannot be read now.
    """
    log, index = _beside(path, "-wal"), _beside(path, "-shm")
    unfinished = log.exists()
    before = _head(index) if unfinished else b""
    committed = _frames(before)
    # Unless a rollback is due, which needs more: a log that is read stays as it is, and so does
    # what tells of its damage.
    mode = "rw" if _beside(path, "-journal").exists() else "ro"
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True)) as db:
            db.execute("SELECT count(*) FROM sqlite_master").fetchone()
            if (found := _frames(_head(index))) < committed:
                raise damaged(log, f"{committed} pages were written, {found} can be read")
            if pages and (unfinished or path.stat().st_size <= _WHOLE):
                _check_pages(path, db)
    except StoreDamaged:
        # SQLite has made the index anew: the next start is to notice it too.
        if before and index.exists():
            with index.open("r+b") as file:
                file.write(before)
        raise
    except sqlite3.Error as error:
        raise fault_of(error, path) from None


def _check_pages(path: Path, db: sqlite3.Connection) -> None:
    found = str(db.execute("PRAGMA quick_check(1)").fetchone()[0])
    if found != "ok":
        raise damaged(path, found.removeprefix("*** in database main ***"))


def _head(index: Path) -> bytes:
    """The two copies of the header in the log's index, b"" for none."""
    try:
        with index.open("rb") as file:
            return file.read(2 * _HEADER)
    except OSError:
        return b""


def _frames(head: bytes) -> int:
    """How many pages the log holds, as the last process left that in the index (SQLite, "WAL-mode
    File Format", section 2.1); 0 where it is not known."""
    first, second = head[:_HEADER], head[_HEADER:]
    if len(second) < _HEADER or first != second:
        return 0  # there is none, or its writer was ended on the way
    initialized, frames = _FRAMES.unpack_from(first)
    return int(frames) if initialized else 0


def _beside(path: Path, suffix: str) -> Path:
    # SQLite puts them beside what a link leads to.
    real = path.resolve()
    return real.with_name(real.name + suffix)
