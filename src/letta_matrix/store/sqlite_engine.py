"""The database in a file of this machine (SQLite), which one bridge has at a time."""

import sqlite3
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from sqlalchemy import URL, Connection, create_engine, event, text
from sqlalchemy.exc import DBAPIError

from letta_matrix.store.checkup import check
from letta_matrix.store.database_file import DatabaseFile
from letta_matrix.store.engine import revision_in
from letta_matrix.store.faults import StoreUnavailable, fault_of

_BEGIN = "letta_matrix_begin"
"""The option of a connection that has how its transactions begin, "" for none."""
_KEPT = text("SELECT count(*) FROM sqlite_master WHERE name = 'alembic_version'")


class SqliteEngine:
    """See StoreEngine. Unopened it can be read while another process has it open."""

    at_hand = True

    def __init__(self, url: URL) -> None:
        self._path = Path(str(url.database))
        self._file = DatabaseFile(self._path)
        # The parameters are what people wrote: no error may show them.
        self._engine = create_engine(url, hide_parameters=True, pool_size=1, max_overflow=0)
        event.listen(self._engine, "connect", _set_up)
        event.listen(self._engine, "begin", _begin)
        self._glancing: Connection | None = None

    def take(self, *, alone: bool = False) -> None:
        # It is always one's own.
        self._file.take()

    def check(self, *, writes: bool = True) -> None:
        check(self._path)

    @contextmanager
    def reading(self) -> Generator[Connection]:
        with self._engine.connect() as connection:
            yield connection

    # A transaction shows one moment, and each reads in one.
    moment = reading

    @contextmanager
    def glancing(self) -> Generator[Connection]:
        # A query shows one moment by itself, and is a third of what a transaction around it takes.
        kept = self._glancing or self._engine.connect().execution_options(**{_BEGIN: ""})
        self._glancing = None
        try:
            yield kept
        except BaseException:
            kept.close()
            raise
        self._glancing = kept

    @contextmanager
    def writing(self) -> Generator[Connection]:
        self._file.check_place()
        with self._engine.connect() as connection:
            # What only reads at first could write no more where another process (`tokens`) has
            # written since, and with it all that share its commit (SQLITE_BUSY_SNAPSHOT).
            connection.execution_options(**{_BEGIN: "BEGIN IMMEDIATE"})
            with connection.begin():
                yield connection

    def fault_of(self, error: DBAPIError) -> StoreUnavailable:
        return fault_of(error, self._path)

    def revision(self, connection: Connection) -> str | None:
        return revision_in(connection, _KEPT)

    def sizes(self) -> dict[str, int]:
        """Of its files: `main`, and the `wal` (write-ahead log)."""
        files = {"main": self._path, "wal": self._path.with_name(self._path.name + "-wal")}
        found: dict[str, int] = {}
        for name, file in files.items():
            # One that is not there has none, and may go away at any moment.
            with suppress(OSError):
                found[name] = file.stat().st_size
        return found

    def close(self) -> None:
        if self._glancing is not None:
            self._glancing.close()
        self._engine.dispose()
        self._file.release()


def _set_up(connection: sqlite3.Connection, _record: object) -> None:
    # The driver's own way begins nothing before a savepoint (SQLAlchemy, "Serializable isolation /
    # Savepoints / Transactional DDL" of its SQLite dialect).
    connection.isolation_level = None
    cursor = connection.cursor()
    # FULL: what was answered with 200 must survive a power cut, not only a crash.
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=5000", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin(connection: Connection) -> None:
    if begin := connection.get_execution_options().get(_BEGIN, "BEGIN"):
        connection.exec_driver_sql(begin)
