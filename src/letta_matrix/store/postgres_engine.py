"""The database on a PostgreSQL server, which several bridges may look at."""

import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Any, cast

from sqlalchemy import URL, Connection, Engine, ExceptionContext, create_engine, event, text
from sqlalchemy.exc import ArgumentError, DBAPIError

from letta_matrix.store import postgres_faults as faults
from letta_matrix.store.engine import revision_in
from letta_matrix.store.faults import StoreError, StoreUnavailable
from letta_matrix.store.postgres_address import place_of
from letta_matrix.store.strangers import check_tables

try:
    import psycopg

    from letta_matrix.store import postgres_connection as connections
except ModuleNotFoundError as error:
    raise StoreError(
        "`database.url` names PostgreSQL, whose driver is not installed",
        "install it: `pip install 'letta-matrix[postgres]'`",
    ) from error

_PAUSE = 0.2
IN_USE = 0x6C65747461
"""The advisory lock that every open database shares; who has it alone is disturbed by nobody."""

_BEGIN = "BEGIN; SELECT pg_current_xact_id()::text"
_SHARE = "SELECT pg_try_advisory_lock_shared(%s)"
_ALONE = "SELECT pg_try_advisory_lock(%s)"
_ABOUT = text(
    "SELECT current_setting('server_encoding') AS encoding, pg_is_in_recovery() AS follows"
)
_KEPT = text("SELECT to_regclass('alembic_version') IS NOT NULL")
_TABLES = text(
    "SELECT relname, relnamespace = quote_ident(current_schema())::regnamespace FROM pg_class "
    "WHERE relkind IN ('r', 'p') AND pg_table_is_visible(pg_class.oid) "
    "AND relnamespace <> 'pg_catalog'::regnamespace AND NOT EXISTS ("
    "SELECT FROM pg_depend WHERE objid = pg_class.oid AND deptype = 'e')"
)
"""The tables that are seen without naming their schema, and whether it is the one that new ones
are made in; those that come with an extension are nobody's."""
_FATE = text("SELECT pg_xact_status(CAST(:xid AS xid8))")
_SIZES = text(
    "SELECT pg_database_size(current_database()) AS main, "
    "coalesce(sum(pg_indexes_size(oid)), 0)::bigint AS indexes "
    "FROM pg_class WHERE relkind = 'r' "
    "AND relnamespace = quote_ident(current_schema())::regnamespace"
)


class PostgresEngine:
    """See StoreEngine. `engine` is for what has to be asked besides."""

    at_hand = False
    patience = 10.0
    """Seconds in which a server is to come back and tell what has become of a commit."""

    def __init__(self, url: URL) -> None:
        self.place = place_of(url)
        self.engine = _made(url)
        self._take = ""
        event.listen(self.engine, "connect", self._share)

    def take(self, *, alone: bool = False) -> None:
        # Each connection from now on says so to the server.
        self._take = _ALONE if alone else _SHARE
        self.engine.dispose()

    def check(self, *, writes: bool = True) -> None:
        """Raises StoreError: it is of no use."""
        with self._told(), self.reading() as connection:
            about = connection.execute(_ABOUT).one()
            tables = connection.execute(_TABLES).all()
        if about.encoding != "UTF8":
            raise StoreError(
                f"{self.place}: the database is encoded in {about.encoding}, not in UTF8",
                "make another one: `CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0`",
            )
        if writes and about.follows:
            raise faults.read_only(self.place)
        check_tables(
            self.place,
            [name for name, _ in tables],
            [name for name, is_there in tables if is_there],
        )

    @contextmanager
    def reading(self) -> Generator[Connection]:
        with self.engine.connect() as connection:
            yield connection

    glancing = reading

    @contextmanager
    def moment(self) -> Generator[Connection]:
        with self.engine.connect() as connection:
            yield connection.execution_options(isolation_level="REPEATABLE READ")

    @contextmanager
    def writing(self) -> Generator[Connection]:
        xid, server, is_done = "", None, False
        try:
            with self.engine.connect() as connection, connection.begin():
                xid, server = self._begin(connection), connection.info["server"]
                yield connection
                is_done = True
        except DBAPIError as error:
            if not (is_done and error.connection_invalidated):
                raise
            if not self._was_written(xid, server):
                raise

    def fault_of(self, error: DBAPIError) -> StoreUnavailable:
        return faults.fault_of(error.orig or error, self.place)

    def revision(self, connection: Connection) -> str | None:
        return revision_in(connection, _KEPT)

    def sizes(self) -> dict[str, int]:
        """Of the database as a whole, `main`, and of that the `indexes`."""
        with self.reading() as connection:
            return dict(connection.execute(_SIZES).mappings().one())

    def close(self) -> None:
        self.engine.dispose()

    @contextmanager
    def _told(self) -> Generator[None]:
        try:
            yield
        except DBAPIError as error:
            raise self.fault_of(error) from error

    def _begin(self, connection: Connection) -> str:
        """The transaction's id, by which the server knows later what has become of it; in one way
        with its beginning. Raises StoreUnavailable."""
        driver = cast("psycopg.Connection[Any]", connection.connection.driver_connection)
        try:
            with driver.cursor() as cursor:
                cursor.execute(_BEGIN, prepare=False)
                cursor.nextset()
                return str(cursor.fetchall()[0][0])
        except psycopg.Error as error:
            connection.invalidate(error)
            raise faults.fault_of(error, self.place) from error

    def _was_written(self, xid: str, server: object) -> bool:
        """Whether a transaction was committed in whose commit the connection was lost. Raises
        StoreUnavailable where that cannot be known: a server that has crashed since, or another
        one, may have given its number to somebody else's."""
        # The thread has no event loop, whose clock it could go by.
        ends = time.monotonic() + self.patience
        while True:
            fate, asked = "in progress", None
            with suppress(DBAPIError), self.reading() as connection:
                fate = connection.execute(_FATE, {"xid": xid}).scalar()
                asked = connection.info["server"]
            if fate == "aborted" or (fate == "committed" and asked == server):
                return fate == "committed"
            if fate == "committed" or time.monotonic() > ends:
                raise faults.unknown_outcome(self.place)
            time.sleep(_PAUSE)

    def _share(self, connection: "psycopg.Connection[Any]", _record: object) -> None:
        if not self._take:
            return
        got = connection.execute(self._take.encode(), (IN_USE,)).fetchone()
        if got == (True,):
            return
        if self._take == _ALONE:
            raise StoreError(
                f"{self.place}: the database is in use by another letta-matrix",
                "stop every bridge that it is the database of",
            )
        raise StoreError(
            f"{self.place}: the database is being copied or put back by another letta-matrix, or "
            "changed",
            "wait until that has ended",
        )


def _made(url: URL) -> Engine:
    # Each statement by itself, unless `_begin` says otherwise: what is only read costs one way
    # there and back instead of three.
    parameters = connections.parameters_for(url)
    try:
        engine = create_engine(
            url,
            connect_args=parameters,
            hide_parameters=True,
            isolation_level="AUTOCOMMIT",
            json_serializer=connections.json_text,
            pool_size=1,
            max_overflow=0,
            use_native_hstore=False,
        )
    except ArgumentError:
        raise StoreError(
            "`database.url` should name as many ports as servers, each a number", "correct it"
        ) from None
    event.listen(engine, "do_connect", _connect)
    event.listen(engine, "connect", connections.set_up)
    event.listen(engine, "checkout", connections.check_out)
    event.listen(engine, "handle_error", _without_rows)
    return engine


def _connect(
    _dialect: object, _record: object, _arguments: object, parameters: dict[str, Any]
) -> "psycopg.Connection[Any]":
    return connections.PatientConnection.connect(**parameters)


def _without_rows(context: ExceptionContext) -> None:
    """Of what a server says only the first line: the others have what people wrote."""
    for error in (context.original_exception, context.sqlalchemy_exception):
        if error is not None and error.args:
            error.args = (str(error.args[0]).split("\n")[0], *error.args[1:])
