"""A look at the database's files before they are used: at what is broken, and at what is missing.

SQLite takes what it finds. A log (`-wal`) that is damaged it reads up to the damage, and forgets
the rest, which had been committed.
"""

import sqlite3
import struct
import sys
from contextlib import closing
from pathlib import Path

from letta_matrix.store.faults import damaged, fault_of
from letta_matrix.store.strangers import check_tables

_WHOLE = 100_000_000
"""Bytes up to which every page is looked at: about 0.15 s. Of larger ones only after an end that
was none: a gigabyte takes 1.5 s."""
_HEADER = 48
_MAGIC = (b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83")
_FRAMES = struct.Struct("=12xB3xI12x8s")


def check(path: Path) -> None:
    """Look at the database at `path`, and at its pages one by one; nothing of it is changed. To
    be called by who alone may write to it: a log that grows meanwhile looks damaged.

    Raises:
        StoreDamaged: it is damaged, or is none.
        StoreUnavailable: it cannot be read now.
        StoreError: it is another program's.
    """
    log, index = _beside(path, "-wal"), _beside(path, "-shm")
    unfinished, salt = log.exists(), _salt(log)
    _raise_again(path, log, salt)
    if unfinished and not salt and (lost := _frames(_head(index)) - _copied(index)) > 0:
        # To be said before SQLite looks: it makes the index anew.
        raise damaged(log, f"{lost} pages were written, the log has no head")
    committed = _frames(_head(index), of=salt)
    # Unless a rollback is due, which needs more: a log that is read stays as it is.
    mode = "rw" if _beside(path, "-journal").exists() else "ro"
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True)) as db:
            found = db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
            tables = [name for (name,) in found if not name.startswith("sqlite_")]
            check_tables(str(path), tables, tables)
            if (readable := _frames(_head(index), of=salt)) < committed:
                what = f"{committed} pages were written, {readable} can be read"
                # SQLite has counted anew by now: the next start is to notice it, too.
                _marker(path).write_bytes(salt + what.encode())
                raise damaged(log, what)
            if unfinished or path.stat().st_size <= _WHOLE:
                _check_pages(path, db)
    except sqlite3.Error as error:
        raise fault_of(error, path) from None


def _raise_again(path: Path, log: Path, salt: bytes) -> None:
    """Raise what was found in this log before. One that has made way for another is forgotten."""
    marker = _marker(path)
    if not marker.exists():
        return
    found = marker.read_bytes()
    if salt and found[: len(salt)] == salt:
        raise damaged(log, found[len(salt) :].decode(errors="replace"))
    marker.unlink()


def _marker(path: Path) -> Path:
    return _beside(path, "-wal.damaged")


def _check_pages(path: Path, db: sqlite3.Connection) -> None:
    found = str(db.execute("PRAGMA quick_check(1)").fetchone()[0])
    if found != "ok":
        raise damaged(path, found.removeprefix("*** in database main ***"))


def _head(index: Path) -> bytes:
    """The two copies of the header in the log's index, b"" for none."""
    return _bytes(index, 2 * _HEADER)


def _copied(index: Path) -> int:
    """How many of the log's pages stand in the database, too (section 2.1, `nBackfill`)."""
    return int.from_bytes(_bytes(index, 4, behind=2 * _HEADER), sys.byteorder)


def _frames(head: bytes, *, of: bytes | None = None) -> int:
    """How many pages the log, or the one with the salt `of`, holds, as the last process left that
    in the index (SQLite, "WAL-mode File Format", section 2.1); 0 where it is not known. After a
    power cut the index may be of an earlier log: it is never synced."""
    first, second = head[:_HEADER], head[_HEADER:]
    if len(second) < _HEADER or first != second:
        return 0  # there is none, or its writer was ended on the way
    initialized, frames, salt = _FRAMES.unpack_from(first)
    return int(frames) if initialized and (of is None or (of and salt == of)) else 0


def _salt(log: Path) -> bytes:
    """What tells a log from the one before (the same, section 1); b"" for none, and for one that
    does not begin like one."""
    head = _bytes(log, 32)
    return head[16:24] if len(head) == 32 and head[:4] in _MAGIC else b""


def _bytes(path: Path, count: int, *, behind: int = 0) -> bytes:
    """Some bytes of a file `behind` others; b"" where it cannot be read."""
    try:
        with path.open("rb") as file:
            file.seek(behind)
            return file.read(count)
    except OSError:
        return b""


def _beside(path: Path, suffix: str) -> Path:
    # SQLite puts them beside what a link leads to.
    real = path.resolve()
    return real.with_name(real.name + suffix)
