"""The bridge's database: one connection in a thread of its own, migrated before use."""

import asyncio
import sqlite3
import sys
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import structlog
from sqlalchemy import (
    URL,
    Connection,
    Delete,
    RowMapping,
    Select,
    Update,
    create_engine,
    event,
    make_url,
    text,
)
from sqlalchemy.exc import DBAPIError

from letta_matrix.common.vitals import Trouble
from letta_matrix.store.checkup import check
from letta_matrix.store.commits import Commits
from letta_matrix.store.database_file import DatabaseFile
from letta_matrix.store.faults import (
    StoreDamaged,
    StoreError,
    StoreUnavailable,
    fault_of,
    is_fault,
    newer_schema,
)
from letta_matrix.store.rows import Statement, execute, record_of

__all__ = ["HEAD", "Database", "StoreDamaged", "StoreError", "StoreUnavailable", "database_url"]

HEAD = "0009"
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
        self.faults = 0
        """How often it could not be used."""
        self._url = url
        self._path = Path(str(url.database))
        self._file = DatabaseFile(self._path)
        self._damaged = self._unwritable = False
        # The parameters are what people wrote: no error may show them.
        self._engine = create_engine(url, hide_parameters=True, pool_size=1, max_overflow=0)
        # One thread owns the one connection: a transaction is one hop there and back, and
        # SQLite takes one writer at a time anyway.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="database")
        self.commits = Commits(self._thread, self._transaction)
        event.listen(self._engine, "connect", _set_up_sqlite)
        event.listen(self._engine, "begin", _begin)

    async def open(self) -> None:
        """Take the database for this process and create or migrate the schema.

        Raises:
            StoreError: the database cannot be used, or another process has it open.
        """
        self._file.take()
        await self._run(lambda: check(self._path))
        revision = await self.revision()
        if revision is not None and revision > HEAD:
            raise newer_schema(revision, HEAD)
        if revision != HEAD:
            await self._migrate()

    async def close(self) -> None:
        """Let go of the file once all that has come is written; nothing more is taken."""
        await self.commits.close()
        await self._run(self._engine.dispose)
        self._thread.shutdown(wait=False)
        self._file.release()

    async def write(self, work: Callable[[Connection], Result]) -> Result:
        """Do `work` in a transaction that commits at its end, or rolls back on an error.

        `work` runs in the database's thread; one that waits beside it may share its commit.
        Raises StoreUnavailable.
        """
        try:
            return await self.commits.add(work)
        except StoreUnavailable:
            self.outage.set()
            raise

    async def execute(self, *statements: Statement) -> None:
        """Execute statements in one transaction. Raises StoreUnavailable."""

        def work(connection: Connection) -> None:
            for statement in statements:
                execute(connection, statement)

        await self.write(work)

    async def read(self, work: Callable[[Connection], Result]) -> Result:
        """Do `work`, which only reads, in the database's thread. Raises StoreUnavailable."""

        def look() -> Result:
            with self._faults(), self._engine.connect() as connection:
                return work(connection)

        return await self._run(look)

    async def rows(self, query: Select[Any]) -> Sequence[RowMapping]:
        """All that a query finds. Raises StoreUnavailable."""
        return await self.read(lambda db: db.execute(query).mappings().all())

    async def records(self, kind: type[Result], query: Select[Any]) -> list[Result]:
        """The same as dataclasses of a kind (see `record_of`)."""
        return [record_of(kind, row) for row in await self.rows(query)]

    async def record(self, kind: type[Result], query: Select[Any]) -> Result | None:
        """The first of them, None where there is none."""
        return next(iter(await self.records(kind, query.limit(1))), None)

    async def value(self, query: Select[Result]) -> Result | None:
        """The one value that a query finds, None for none. Raises StoreUnavailable."""
        return await self.read(lambda db: db.execute(query).scalar_one_or_none())

    async def values(self, query: Select[Result]) -> list[Result]:
        """A column of what a query finds. Raises StoreUnavailable."""
        return await self.read(lambda db: list(db.execute(query).scalars()))

    async def changed(self, statement: Update | Delete) -> int:
        """Execute a statement: how many rows it has changed. Raises StoreUnavailable."""
        return await self.write(lambda db: db.execute(statement).rowcount)

    async def revision(self) -> str | None:
        """The schema's, None where there is none yet. Raises StoreUnavailable."""
        kept = text("SELECT count(*) FROM sqlite_master WHERE name = 'alembic_version'")
        revision = text("SELECT version_num FROM alembic_version")

        def look(db: Connection) -> str | None:
            return db.execute(revision).scalar() if db.execute(kept).scalar() else None

        return await self.read(look)

    def sizes(self) -> dict[str, int]:
        """Bytes of its files: `main`, and the `wal` (write-ahead log)."""
        files = {"main": self._path, "wal": self._path.with_name(self._path.name + "-wal")}
        found: dict[str, int] = {}
        for name, file in files.items():
            # One that is not there has none, and may go away at any moment.
            with suppress(OSError):
                found[name] = file.stat().st_size
        return found

    def glance(self, work: Callable[[Connection], Result]) -> Result:
        """Do `work`, which reads a row or two, at once and in the caller's thread: the way to
        the database's thread and back takes twenty times as long. For a database of which
        nothing else is asked: its one connection must be free. Raises StoreUnavailable.
        """
        with self._faults(), self._engine.connect() as connection:
            return work(connection)

    @contextmanager
    def _transaction(self) -> Generator[Connection]:
        with self._faults(writes=True):
            self._file.check_place()
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
        self.faults += fault is not None
        # A database that is damaged in one place serves others well; a full disk can be read.
        if self._damaged or (self._unwritable and not writes):
            return
        self._damaged = isinstance(fault, StoreDamaged)
        self._unwritable = writes and fault is not None
        self.trouble = None if fault is None else fault.trouble

    async def _run(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

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
