"""The bridge's database: one connection in a thread of its own, migrated before use."""

import asyncio
import fcntl
import os
import sqlite3
import sys
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import structlog
from sqlalchemy import URL, Connection, Executable, create_engine, event, make_url, text
from sqlalchemy.exc import DBAPIError

from letta_matrix.common.vitals import Trouble
from letta_matrix.store.checkup import check
from letta_matrix.store.commits import Commits
from letta_matrix.store.faults import (
    StoreDamaged,
    StoreError,
    StoreUnavailable,
    fault_of,
    is_fault,
    lost,
)

__all__ = ["HEAD", "Database", "StoreDamaged", "StoreError", "StoreUnavailable", "database_url"]

HEAD = "0008"
"""The schema's newest revision; a test holds it against the migrations."""

log = structlog.get_logger()

Result = TypeVar("Result")

_WRITES = "letta_matrix_writes"
"""The option of a connection whose transaction is to write."""


def database_url(configured: str, directory: Path) -> URL:
    """The SQLAlchemy URL for `database.url`; relative SQLite paths start at `directory`."""
    url = make_url(configured)
    path = directory / (url.database or "letta-matrix.db")
    return url.set(drivername="sqlite+pysqlite", database=str(path))


class Database:
    """One database. Open it with `open()`, end with `close()`.

    Unopened it can be read while another process has it open.
    """

    def __init__(self, url: URL) -> None:
        self.trouble: Trouble | None = None
        """What is wrong with it: of the last use, or the damage that was found. A write that
        failed is not made good by reading."""
        self.outage = asyncio.Event()
        """Set when something could not be written."""
        self._url = url
        self._path = Path(str(url.database))
        self._damaged = self._unwritable = False
        self._identity: tuple[int, int] | None = None
        self._lock: int | None = None
        # The parameters are what people wrote: no error may show them.
        self._engine = create_engine(url, hide_parameters=True, pool_size=1, max_overflow=0)
        # One thread owns the one connection: a transaction is one hop there and back, and
        # SQLite takes one writer at a time anyway.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="database")
        self._commits = Commits(self._thread, self._transaction)
        event.listen(self._engine, "connect", _set_up_sqlite)
        event.listen(self._engine, "begin", _begin)

    async def open(self) -> None:
        """Take the database for this process and create or migrate the schema.

        Raises:
            StoreError: the database cannot be used, or another process has it open.
        """
        _make_folder(self._path)
        self._lock = _lock(self._path)
        file = _open_private(self._path)
        self._identity = _identity(os.fstat(file))
        os.close(file)
        _make_private(self._path)
        await self._run(lambda: check(self._path))
        try:
            revision = await self._run(self._revision)
        except DBAPIError as error:
            raise fault_of(error, self._path) from None
        if revision is not None and revision > HEAD:
            raise StoreError(
                f"the database was written by a newer letta-matrix (schema {revision}, this one "
                f"knows {HEAD}): upgrade letta-matrix"
            )
        if revision != HEAD:
            await self._migrate()

    async def close(self) -> None:
        """Let go of the file once all that has come is written; nothing more is taken."""
        await self._commits.close()
        await self._run(self._engine.dispose)
        self._thread.shutdown(wait=False)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def write(self, work: Callable[[Connection], Result]) -> Result:
        """Do `work` in a transaction that commits at its end, or rolls back on an error.

        `work` runs in the database's thread; one that waits beside it may share its commit.
        Raises StoreUnavailable.
        """
        try:
            return await self._commits.add(work)
        except StoreUnavailable:
            self.outage.set()
            raise

    async def execute(self, *statements: Executable) -> None:
        """Execute statements in one transaction. Raises StoreUnavailable."""

        def work(connection: Connection) -> None:
            for statement in statements:
                connection.execute(statement)

        await self.write(work)

    async def read(self, work: Callable[[Connection], Result]) -> Result:
        """Do `work`, which only reads, in the database's thread. Raises StoreUnavailable."""

        def look() -> Result:
            with self._faults(), self._engine.connect() as connection:
                return work(connection)

        return await self._run(look)

    def glance(self, work: Callable[[Connection], Result]) -> Result:
        """Do `work`, which reads a row or two, at once and in the caller's thread: the way to
        the database's thread and back takes twenty times as long. For a database of which
        nothing else is asked: its one connection must be free. Raises StoreUnavailable.
        """
        with self._faults(), self._engine.connect() as connection:
            return work(connection)

    def _check_place(self) -> None:
        # SQLite goes on in a file that has no name any more, and all of it would be lost.
        if self._identity is None:
            return
        try:
            there = _identity(self._path.stat())
        except OSError:
            there = None
        if there != self._identity:
            raise lost(self._path)

    @contextmanager
    def _transaction(self) -> Generator[Connection]:
        with self._faults(writes=True):
            self._check_place()
            with self._engine.connect() as connection:
                connection.execution_options(**{_WRITES: True})
                with connection.begin():
                    yield connection

    @contextmanager
    def _faults(self, *, writes: bool = False) -> Generator[None]:
        try:
            yield
        except StoreUnavailable as fault:
            self._note(fault, writes=writes)
            raise
        except DBAPIError as error:
            if not is_fault(error):
                raise
            fault = fault_of(error, self._path)
            self._note(fault, writes=writes)
            raise fault from error
        else:
            self._note(None, writes=writes)

    def _note(self, fault: StoreError | None, *, writes: bool) -> None:
        # A database that is damaged in one place serves others well; a full disk can be read.
        if self._damaged or (self._unwritable and not writes):
            return
        self._damaged = isinstance(fault, StoreDamaged)
        self._unwritable = writes and fault is not None
        self.trouble = None if fault is None else fault.trouble

    async def _run(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _revision(self) -> str | None:
        with self._engine.connect() as connection:
            # A probe rather than reflection, which would load all of it.
            try:
                found = connection.execute(text("SELECT version_num FROM alembic_version"))
            except DBAPIError as error:
                if "alembic_version" in str(error.orig):
                    return None
                raise
            return found.scalar_one_or_none()

    async def _migrate(self) -> None:
        # In a process of its own: Alembic would stay in this one's memory for ever.
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "letta_matrix.store.migrate",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await child.communicate(self._url.render_as_string().encode())
        if child.returncode != 0:
            last = output.decode(errors="replace").strip().rpartition("\n")[2]
            raise StoreError(f"the database could not be migrated to schema {HEAD}: {last}")
        log.info("database migrated", schema=HEAD)


def _set_up_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    # The driver's own way begins nothing before a savepoint (SQLAlchemy, "Serializable isolation /
    # Savepoints / Transactional DDL" of its SQLite dialect).
    connection.isolation_level = None
    cursor = connection.cursor()
    # FULL: what was answered with 200 must survive a power cut, not only a crash.
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=5000", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin(connection: Connection) -> None:
    # What only reads at first could write no more where another process (`tokens`) has written
    # since, and with it all that share its commit (SQLITE_BUSY_SNAPSHOT).
    writes = connection.get_execution_options().get(_WRITES)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _make_folder(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(path, error) from None


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _open_private(path: Path) -> int:
    try:
        return os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    except OSError as error:
        raise _unwritable(path, error) from None


def _make_private(path: Path) -> None:
    """A copy that was put back, or what an earlier version wrote, may be for everybody to read.
    New files beside it get its mode from SQLite."""
    for suffix in ("", "-wal", "-shm"):
        file = path.with_name(path.name + suffix)
        # Somebody else's is theirs to change.
        with suppress(FileNotFoundError, PermissionError):
            if file.stat().st_mode & 0o077:
                file.chmod(0o600)


def _unwritable(path: Path, error: OSError) -> StoreError:
    return StoreError(
        f"{path}: the database cannot be written: {error.strerror}; the bridge's user has to own "
        "it and its folder, or name another file by `database.url`"
    )


def check_if_alone(path: Path) -> None:
    """Look at a database as a start of the bridge does, unless a bridge has it open.

    Raises:
        StoreError: it is damaged, or cannot be read.
    """
    try:
        lock = _lock(path)
    except StoreError:
        return
    try:
        check(path)
    finally:
        os.close(lock)


def _lock(path: Path) -> int:
    """An open file beside the database, locked; the kernel unlocks it however we end."""
    # Resolved, so that a link to the database leads to the same lock.
    lock = _open_private(path.resolve().with_name(path.resolve().name + ".lock"))
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.read(lock, 20).decode(errors="replace").strip() or "unknown"
        os.close(lock)
        if not isinstance(error, BlockingIOError):
            raise StoreError(f"{path}: the database cannot be locked: {error.strerror}") from None
        raise StoreError(
            f"the database {path} is in use by another letta-matrix (pid {holder}): stop that one "
            "first, or give each a `database.url` of its own"
        ) from None
    # The pid is for error messages only; a full disk says so elsewhere.
    with suppress(OSError):
        os.ftruncate(lock, 0)
        os.write(lock, f"{os.getpid()}\n".encode())
    return lock
