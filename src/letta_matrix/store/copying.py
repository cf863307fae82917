"""Everything that a database holds, in another one: row by row, and looked at afterwards."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    JSON,
    Column,
    Connection,
    Table,
    Text,
    cast,
    func,
    select,
    text,
    type_coerce,
)
from sqlalchemy.exc import DataError, IntegrityError

from letta_matrix.common.lenient_json import loads
from letta_matrix.store.faults import StoreError, line_of
from letta_matrix.store.schema import metadata

_ROWS_AT_ONCE = 500
_POSTGRES = "postgresql"
Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Copied:
    """A table, how many rows it has, and a digest of all of them."""

    table: str
    rows: int
    digest: str


def copy_rows(
    source: Connection, target: Connection, guard: Callable[[], AbstractContextManager[None]]
) -> Iterator[Copied]:
    """Copy table by table into one that has nothing, each as soon as it is asked for. Both are in
    transactions, which for `source` shows one moment, and for `target` is the caller's to commit.
    What `source` is asked is asked in a `guard`, which tells its faults from those of `target`.

    Raises:
        StoreError: what arrived is not what was sent.
    """
    with guard():
        _be_patient(source)
    _be_patient(target)
    for table in metadata.sorted_tables:
        sent = _Digest(table)
        batches = _read(source, table)
        while True:
            with guard():
                rows = next(batches, None)
            if rows is None:
                break
            sent.add(rows)
            _write(target, table, rows)
        found = digest_of(target, table)
        if sent.told() != found:
            raise StoreError(
                f"{table.name}: {sent.told().rows} rows were copied and {found.rows} arrived, or "
                "others than these",
                "nothing was written; see whether another program writes into the new database",
            )
        with guard():
            newest = _newest(source, table)
        if newest is not None:
            _go_on_behind(target, table, newest)
        yield found


def digest_of(connection: Connection, table: Table) -> Copied:
    """What a table holds by now."""
    found = _Digest(table)
    for rows in _read(connection, table):
        found.add(rows)
    return found.told()


def is_empty(connection: Connection) -> bool:
    """Whether there is nothing in any table."""
    return not any(
        connection.execute(select(func.count()).select_from(table)).scalar_one()
        for table in metadata.sorted_tables
    )


def clear(connection: Connection) -> None:
    """Take everything out of all tables."""
    for table in reversed(metadata.sorted_tables):
        connection.execute(table.delete())


def _be_patient(connection: Connection) -> None:
    """Each stands still while the other is looked at."""
    if connection.dialect.name == _POSTGRES:
        for name in ("idle_in_transaction_session_timeout", "statement_timeout"):
            connection.execute(text(f"SET LOCAL {name} = 0"))


class _Digest:
    def __init__(self, table: Table) -> None:
        self._table = table
        self._rows = 0
        self._hash = hashlib.sha256()

    def add(self, rows: Sequence[Row]) -> None:
        self._rows += len(rows)
        for row in rows:
            self._hash.update(json.dumps(row).encode() + b"\n")

    def told(self) -> Copied:
        return Copied(self._table.name, self._rows, self._hash.hexdigest())


def _read(connection: Connection, table: Table) -> Iterator[Sequence[Row]]:
    is_postgres = connection.dialect.name == _POSTGRES
    columns = [_as_stored(column, is_postgres=is_postgres) for column in table.columns]
    query = select(*columns).order_by(*table.primary_key)
    found = connection.execute(query.execution_options(yield_per=_ROWS_AT_ONCE))
    fits = [_fit_json if isinstance(column.type, JSON) else _fit for column in table.columns]
    for rows in found.partitions():
        yield [tuple(fit(value) for fit, value in zip(fits, row, strict=True)) for row in rows]


def _as_stored(column: Column[Any], *, is_postgres: bool) -> Any:
    """JSON as text, which tells a null of JSON from none at all."""
    if not isinstance(column.type, JSON):
        return column
    return cast(column, Text) if is_postgres else type_coerce(column, Text)


def _fit(value: Any) -> Any:
    """What either kind of database takes, see `postgres_connection.py`."""
    if isinstance(value, str) and "\0" in value:
        return value.replace("\0", "\N{REPLACEMENT CHARACTER}")
    return value


def _fit_json(value: Any) -> Any:
    odd = isinstance(value, str) and ("NaN" in value or "Infinity" in value)
    return json.dumps(loads(value)) if odd else value


def _write(connection: Connection, table: Table, rows: Sequence[Row]) -> None:
    is_postgres = connection.dialect.name == _POSTGRES
    names = [column.name for column in table.columns]
    values = ", ".join(
        f"CAST(:{column.name} AS json)"
        if is_postgres and isinstance(column.type, JSON)
        else f":{column.name}"
        for column in table.columns
    )
    quoted = ", ".join(f'"{name}"' for name in names)
    # The names are our own.
    statement = text(f"INSERT INTO {table.name} ({quoted}) VALUES ({values})")  # noqa: S608
    try:
        connection.execute(statement, [dict(zip(names, row, strict=True)) for row in rows])
    except (DataError, IntegrityError) as error:
        raise StoreError(
            f"{table.name}: the new database does not take a row: {line_of(str(error.orig))}",
            "nothing was written; the bridge can go on with the old one",
        ) from None


def _newest(connection: Connection, table: Table) -> int | None:
    """The highest number that was ever given in a table that counts."""
    if "seq" not in table.primary_key.columns:
        return None
    found = [connection.execute(select(func.max(table.c.seq))).scalar() or 0]
    if connection.dialect.name == _POSTGRES:
        given = f"SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM {_counter(table)}"  # noqa: S608
        query = text(given)
        found.append(connection.execute(query).scalar_one())
    elif table.dialect_options["sqlite"]["autoincrement"]:
        query = text("SELECT seq FROM sqlite_sequence WHERE name = :name")
        found.append(connection.execute(query, {"name": table.name}).scalar() or 0)
    return int(max(found))


def _go_on_behind(connection: Connection, table: Table, newest: int) -> None:
    if connection.dialect.name == _POSTGRES:
        if newest:
            after = text("SELECT setval(CAST(:counter AS regclass), :newest)")
            connection.execute(after, {"counter": _counter(table), "newest": newest})
    elif table.dialect_options["sqlite"]["autoincrement"]:
        named = {"name": table.name, "newest": newest}
        connection.execute(text("DELETE FROM sqlite_sequence WHERE name = :name"), named)
        counter = text("INSERT INTO sqlite_sequence (name, seq) VALUES (:name, :newest)")
        connection.execute(counter, named)


def _counter(table: Table) -> str:
    return f"{table.name}_seq_seq"
