"""The bridge's database: one connection in a thread of its own, migrated before use."""

import asyncio
import math
import sys
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Self, TypeVar

import structlog
from sqlalchemy import (
    URL,
    Connection,
    Delete,
    RowMapping,
    Select,
    Update,
    make_url,
    select,
)
from sqlalchemy.exc import DBAPIError

from letta_matrix.common import clock
from letta_matrix.common.vitals import Trouble
from letta_matrix.store.commits import Commits
from letta_matrix.store.engine import StoreEngine
from letta_matrix.store.faults import (
    StoreDamaged,
    StoreError,
    StoreUnavailable,
    StoreUnsure,
    is_fault,
    newer_schema,
)
from letta_matrix.store.fence import Fence
from letta_matrix.store.postgres_address import server_url
from letta_matrix.store.rows import Statement, execute, record_of
from letta_matrix.store.schema import meta

__all__ = [
    "HEAD",
    "Database",
    "StoreDamaged",
    "StoreError",
    "StoreUnavailable",
    "database_url",
    "file_of",
]

HEAD = "0010"
"""The schema's newest revision; a test holds it against the migrations."""

log = structlog.get_logger()

Result = TypeVar("Result")

UNFINISHED = "copy unfinished"
"""The key in `meta` of a database that is being copied into."""
_UNFINISHED = select(meta.c.value).where(meta.c.key == UNFINISHED)
_SIZES_LAST = 60.0
"""Seconds for which the sizes of a server's database hold."""
_POSTGRES = "postgres"
"""How the addresses of servers begin, `postgresql:` and `postgres:`."""


def database_url(configured: str, directory: Path, password: str = "") -> URL:
    """The SQLAlchemy URL for `database.url`; relative SQLite paths start at `directory`. Only a
    server asks for a `password`, which the URL does not show when it is printed. Raises ValueError
    for one that is none."""
    if configured.startswith(_POSTGRES):
        url = server_url(configured).set(drivername="postgresql+psycopg")
        return url.set(password=password) if password else url
    url = make_url(configured)
    path = directory / (url.database or "letta-matrix.db")
    return url.set(drivername="sqlite+pysqlite", database=str(path))


def file_of(url: URL) -> Path | None:
    """The file that a database is in, None for one on a server."""
    return None if url.drivername.startswith(_POSTGRES) else Path(str(url.database))


def _engine_of(url: URL) -> StoreEngine:
    # Each only where it is used: neither driver is to cost the other's start anything.
    if file_of(url) is None:
        from letta_matrix.store.postgres_engine import PostgresEngine

        return PostgresEngine(url)
    from letta_matrix.store.sqlite_engine import SqliteEngine

    return SqliteEngine(url)


class Database:
    """One database. Open it with `open()`, end with `close()`, as `async with` does. Where there
    are replicas, nothing is written but what passes the `fence`, nor goes on before that is sure.

    Unopened it can be read while another process has it open.
    """

    def __init__(self, url: URL, fence: Fence | None = None) -> None:
        self.trouble: Trouble | None = None
        """What is wrong with it: of the last use, or the damage that was found. A write that
        failed is not made good by reading."""
        self.outage = asyncio.Event()
        """Set when something could not be written."""
        self.unsure = asyncio.Event()
        """Set when nobody could tell whether something was written: whoever holds in memory what
        is stored is to begin anew."""
        self.faults = 0
        """How often it could not be used."""
        self._fence = fence
        self._url = url
        self._damaged = self._unwritable = False
        self._engine = _engine_of(url)
        self._sizes: dict[str, int] = {}
        self._sized_at = -math.inf
        # One thread owns the one connection: a transaction is one hop there and back, and
        # SQLite takes one writer at a time anyway.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="database")
        self.commits = Commits(self._thread, self._transaction)

    async def open(self, *, migrates: bool = True, alone: bool = False) -> None:
        """Take the database for this process, `alone` where several could have it, and create or
        migrate the schema (unless it `migrates` not, and there is one).

        Raises:
            StoreError: the database cannot be used, or another process has it for itself.
        """
        await self.take(alone=alone)
        if migrates or await self.revision() is None:
            await self.make()
        if await self.copied_from() is not None:
            raise StoreError(
                "the database is being copied into, or that was cut off",
                "run `letta-matrix database copy` again: it begins anew",
            )

    async def copied_from(self) -> object:
        """What is still to be copied into it, None for nothing."""
        return await self.value(_UNFINISHED)

    async def take(self, *, alone: bool = False) -> None:
        """Take the database as it is, `alone` where several could have it. Raises StoreError."""
        await self._run(lambda: self._engine.take(alone=alone))
        await self.check()
        if (revision := await self.revision()) is not None and revision > HEAD:
            raise newer_schema(revision, HEAD)

    async def make(self) -> None:
        """Create or migrate the schema. Raises StoreError."""
        if await self.revision() != HEAD:
            await self.migrate()

    async def check(self, *, writes: bool = True) -> None:
        """Look at it as `open` does, or, where nobody `writes`, whether it can be read. To be
        called of a file that nobody has open, and of a server at any time. Raises StoreError."""
        await self._run(lambda: self._engine.check(writes=writes))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Let go of it once all that has come is written; nothing more is taken."""
        await self.commits.close()
        await self._run(self._engine.close)
        self._thread.shutdown(wait=False)

    async def write(self, work: Callable[[Connection], Result]) -> Result:
        """Do `work` in a transaction that commits at its end, or rolls back on an error.

        `work` runs in the database's thread; one that waits beside it may share its commit.
        Raises StoreUnavailable.
        """
        try:
            result = await self.commits.add(work)
        except StoreUnavailable as fault:
            self.outage.set()
            if isinstance(fault, StoreUnsure):
                self.unsure.set()
            raise
        if self._fence is not None:
            # What follows from it may reach others, who know nothing of our database.
            await self._fence.sure()
        return result

    async def execute(self, *statements: Statement) -> None:
        """Execute statements in one transaction. Raises StoreUnavailable."""

        def work(connection: Connection) -> None:
            for statement in statements:
                execute(connection, statement)

        await self.write(work)

    async def read(self, work: Callable[[Connection], Result]) -> Result:
        """Do `work`, which only reads, in the database's thread. Raises StoreUnavailable."""

        return await self._run(lambda: self._look(work))

    @contextmanager
    def moment(self) -> Generator[Connection]:
        """Read what there is at one moment, in the caller's thread; nothing else is asked of it
        meanwhile. Errors are the driver's, unless it is asked within `told`. Raises
        StoreUnavailable."""
        with ExitStack() as opened:
            with self.told():
                connection = opened.enter_context(self._engine.moment())
            yield connection

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
        return await self.read(self._engine.revision)

    def sizes(self) -> dict[str, int]:
        """Bytes that it takes, by what for; those of a server as they were a minute ago at most,
        none before it was first asked."""
        if self._engine.at_hand:
            return self._engine.sizes()
        if clock.now() - self._sized_at > _SIZES_LAST:
            self._sized_at = clock.now()
            self._thread.submit(self._measure)
        return self._sizes

    async def glance(self, work: Callable[[Connection], Result]) -> Result:
        """Do `work`, one query for a row or two, at once and in the caller's thread if the
        database is at hand: the way to the database's thread and back takes much longer. For a
        database of which nothing else is asked: its one connection is kept. Raises
        StoreUnavailable.
        """
        if not self._engine.at_hand:
            return await self.read(work)
        with self.told(), self._engine.glancing() as connection:
            return work(connection)

    def _measure(self) -> None:
        # A server that is away is told of by those who need it.
        with suppress(StoreUnavailable), self.told():
            self._sizes = self._engine.sizes()

    def _look(self, work: Callable[[Connection], Result]) -> Result:
        with self.told(), self._engine.reading() as connection:
            return work(connection)

    @contextmanager
    def _transaction(self) -> Generator[Connection]:
        with self.told(writes=True), self._engine.writing() as connection:
            if self._fence is not None:
                self._fence.check(connection)
            yield connection

    @contextmanager
    def told(self, *, writes: bool = False) -> Generator[None]:
        """What the driver says is told as StoreUnavailable."""
        try:
            yield
        except StoreUnavailable as fault:
            self._note(fault, writes=writes)
            raise
        except DBAPIError as error:
            if not is_fault(error):
                raise
            fault = self._engine.fault_of(error)
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

    async def migrate(self) -> None:
        """Bring the schema to the newest; others who do are waited for. Raises StoreError."""
        # In a process of its own: Alembic would stay in this one's memory for ever.
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "letta_matrix.store.migrate",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        whole = self._url.render_as_string(hide_password=False)
        output, _ = await child.communicate(whole.encode())
        if child.returncode != 0:
            last = output.decode(errors="replace").strip().rpartition("\n")[2]
            raise StoreError(f"the database could not be migrated to schema {HEAD}: {last}")
        log.info("database migrated", schema=HEAD)
