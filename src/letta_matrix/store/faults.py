"""What can be wrong with the database, in words that say what to do."""

import sqlite3
from pathlib import Path

from sqlalchemy.exc import (
    DatabaseError,
    DataError,
    DBAPIError,
    IntegrityError,
    InterfaceError,
    OperationalError,
)

from letta_matrix.common.vitals import Trouble

_REPAIR = 'stop the bridge and put a backup back, or see "A damaged database" in docs/operations.md'
_LONGEST = 120
_NOT_OURS = (
    *(sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY),
    *(sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_AUTH),
)


class StoreError(Exception):
    """The database cannot be used; the text says what to do. `trouble` has both apart."""

    def __init__(self, says: str = "", remedy: str = "") -> None:
        super().__init__(f"{says}; {remedy}" if remedy else says)
        self.trouble = Trouble(says, remedy)


class StoreUnavailable(StoreError):
    """The database cannot be used now (locked, full, away); trying again later can help."""


class StoreUnsure(StoreUnavailable):
    """Whether something was written is not known, and cannot be asked now. What this process holds
    in memory may be less than what is stored: it has to begin anew."""


class LeaseLost(StoreUnavailable):
    """Another replica acts by now; nothing of this one is stored any more."""

    def __init__(self) -> None:
        super().__init__("another replica has taken over", "this one stands by from now on")


class StoreDamaged(StoreUnavailable):
    """What the database's files hold cannot be read; that stays so until somebody puts a backup
    back. Everything goes on that does not need it."""


def is_fault(error: BaseException) -> bool:
    """Whether an error is the database's own; of a broken constraint, say, the cause is ours."""
    if type(error) in (OperationalError, InterfaceError, DatabaseError):
        return True
    # PostgreSQL tells each kind by a number, and its driver sorts them in another way.
    told = isinstance(error, DBAPIError) and getattr(error.orig, "sqlstate", None) is not None
    return told and not isinstance(error, IntegrityError | DataError)


def damaged(file: Path, what: str) -> StoreDamaged:
    """The fault for a damaged `file`, of which `what` is known."""
    return StoreDamaged(f"{file}: the database is damaged ({line_of(what)})", _REPAIR)


def newer_schema(revision: str, known: str) -> StoreError:
    """The fault where the database is of a later version than this one."""
    return StoreError(
        f"the database was written by a newer letta-matrix (schema {revision}, this one knows "
        f"{known})",
        "upgrade letta-matrix",
    )


def fault_of(error: DBAPIError | sqlite3.Error, file: Path) -> StoreUnavailable:
    """What an error of SQLite means for whoever runs the bridge (SQLite, "Result Codes")."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    said = line_of(str(cause))
    code = getattr(cause, "sqlite_errorcode", None)
    # The low byte; the rest tells details.
    match code & 0xFF if isinstance(code, int) else None:
        case sqlite3.SQLITE_CORRUPT:
            return damaged(file, said)
        case sqlite3.SQLITE_NOTADB:
            return StoreDamaged(
                f"{file}: {said}",
                "move it away and put a backup back, or name another file by `database.url`",
            )
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            remedy = "another program holds it: end that one"
        case sqlite3.SQLITE_FULL:
            remedy = f"make room on the disk of {file.parent}: until then no message is taken"
        case sqlite3.SQLITE_IOERR:
            remedy = "see whether the disk is full, or fails"
        case number if number in _NOT_OURS:
            remedy = (
                "the bridge's user has to own it, its folder, and what is beside it (-wal, -shm)"
            )
        case _:
            return StoreUnavailable(f"{file}: the database cannot be used now: {said}")
    return StoreUnavailable(f"{file}: the database cannot be used now: {said}", remedy)


def line_of(text: str) -> str:
    """The beginning of a text, as one line."""
    return " ".join(text.split())[:_LONGEST]
