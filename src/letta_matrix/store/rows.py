"""What tables keep of a dataclass."""

from collections.abc import Callable, Mapping
from dataclasses import fields
from enum import StrEnum
from functools import cache
from typing import Any, TypeVar, get_args, get_origin

from sqlalchemy import (
    Column,
    Connection,
    CursorResult,
    Executable,
    RowMapping,
    Table,
    Update,
    and_,
    bindparam,
    delete,
    update,
)

T = TypeVar("T")

Statement = Executable | tuple[Executable, Mapping[str, Any]]
"""What is executed; or that, made once for all turns, and the values of this one: to make it anew
takes four times as long as to execute it."""


def execute(connection: Connection, statement: Statement) -> CursorResult[Any]:
    """Execute a statement, with its values if it comes with them."""
    if isinstance(statement, tuple):
        return connection.execute(*statement)
    return connection.execute(statement)


def row_by(column: Column[Any]) -> Update:
    """The statement that changes one row: executed with the values of columns, and of `of`, what
    this column holds there."""
    return update(column.table).where(column == bindparam("of"))


def row_of(record: Any, *without: str) -> dict[str, Any]:
    """The fields of a dataclass with slots, but for some, as a table has them."""
    names = [name for name in record.__slots__ if name not in without]
    return {name: _plain(getattr(record, name)) for name in names}


def record_of(kind: type[T], row: RowMapping) -> T:
    """The dataclass of a row, which may have more than that; the reverse of `row_of`."""
    names, readers = _reading(kind)
    values: dict[str, Any] = {name: row[name] for name in names}
    for name, read in readers:
        values[name] = read(values[name])
    return kind(**values)


def replacing(table: Table, values: Mapping[str, Any]) -> tuple[Executable, Executable]:
    """The statements that let a row stand in the place of the one with its primary key."""
    same = and_(*(column == values[column.name] for column in table.primary_key))
    return delete(table).where(same), table.insert().values(**values)


def _plain(value: Any) -> Any:
    match value:
        case StrEnum():
            return str(value)
        case Mapping():
            return dict(value)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
        case tuple():
            return list(value)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
        case _:
            return value


@cache
def _reading(kind: Any) -> tuple[list[str], list[tuple[str, Callable[[Any], Any]]]]:
    """The fields of a dataclass, and those that rows do not hold as they are, with how to read
    them: looked up once, as every turn reads some rows."""
    readers = [(field.name, _reader(field.type)) for field in fields(kind)]
    return [name for name, _ in readers], [(name, read) for name, read in readers if read]


def _reader(kind: Any) -> Callable[[Any], Any] | None:
    alternatives: list[Any] = [kind, *get_args(kind)]
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return kind
    is_tuple = any(get_origin(one) is tuple for one in alternatives)
    return (lambda value: None if value is None else tuple(value)) if is_tuple else None
