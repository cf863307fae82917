"""The bridge's database: one engine, one writer at a time, migrated before use."""

import asyncio
import os
import sys
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import structlog
from sqlalchemy import event, make_url, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

HEAD = "0001"
"""The schema's newest revision; a test holds it against the migrations."""

log = structlog.get_logger()


class StoreError(Exception):
    """The database cannot be used; the text says what to do."""


class StoreUnavailable(StoreError):
    """The database cannot be used now (locked, full, away); trying again later can help."""


def database_url(configured: str, directory: Path) -> URL:
    """The SQLAlchemy URL for `database.url`; relative SQLite paths start at `directory`."""
    url = make_url(configured)
    path = directory / (url.database or "letta-matrix.db")
    return url.set(drivername="sqlite+aiosqlite", database=str(path))


class Database:
    """Connections to one database. Open it with `open()`, end with `close()`."""

    def __init__(self, url: URL) -> None:
        self._url = url
        # The parameters are what people wrote: no error may show them.
        # No overflow: each further SQLite connection is a thread, made and ended under load.
        self._engine: AsyncEngine = create_async_engine(
            url, hide_parameters=True, pool_size=5, max_overflow=0
        )
        self._writer = asyncio.Lock()
        event.listen(self._engine.sync_engine, "connect", _set_up_sqlite)

    async def open(self) -> None:
        """Create or migrate the schema. Raises StoreError when the database cannot be used."""
        _create_private(Path(str(self._url.database)))
        try:
            revision = await self._revision()
        except (DBAPIError, OSError) as error:
            raise StoreError(f"the database cannot be opened: {_cause(error)}") from None
        if revision is not None and revision > HEAD:
            raise StoreError(
                f"the database was written by a newer letta-matrix (schema {revision}, this one "
                f"knows {HEAD}): upgrade letta-matrix"
            )
        if revision != HEAD:
            await self._migrate()

    async def close(self) -> None:
        await self._engine.dispose()

    @asynccontextmanager
    async def write(self) -> AsyncGenerator[AsyncConnection]:
        """A transaction that commits at the end of the block, or rolls back on an error.

        Raises StoreUnavailable.
        """
        # One writer at a time in this process: SQLite would make the others poll for the lock.
        with _faults():
            async with self._writer, self._engine.begin() as connection:
                yield connection

    @asynccontextmanager
    async def read(self) -> AsyncGenerator[AsyncConnection]:
        """A connection to read with. Raises StoreUnavailable."""
        with _faults():
            async with self._engine.connect() as connection:
                yield connection

    async def _revision(self) -> str | None:
        async with self._engine.connect() as connection:
            # A probe rather than reflection, which would load all of it.
            try:
                found = await connection.execute(text("SELECT version_num FROM alembic_version"))
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


@contextmanager
def _faults() -> Generator[None]:
    try:
        yield
    except (OperationalError, InterfaceError) as error:
        raise StoreUnavailable(f"the database cannot be used now: {_cause(error)}") from error


def _set_up_sqlite(connection: object, _record: object) -> None:
    cursor = connection.cursor()  # type: ignore[attr-defined]
    # FULL: what was answered with 200 must survive a power cut, not only a crash.
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=5000", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _create_private(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        raise StoreError(f"{path}: the database cannot be written: {error.strerror}") from None


def _cause(error: BaseException) -> str:
    return str(getattr(error, "orig", None) or error)
