"""What tables keep of a dataclass."""

from collections.abc import Callable, Mapping
from dataclasses import fields
from enum import StrEnum
from functools import cache
from typing import Any, TypeVar

from sqlalchemy import Executable, RowMapping, Table, and_, delete

T = TypeVar("T")


def row_of(record: Any, *without: str) -> dict[str, Any]:
    """The fields of a dataclass with slots, but for some, as a table has them."""
    names = [name for name in record.__slots__ if name not in without]
    return {name: _plain(getattr(record, name)) for name in names}


def record_of(kind: type[T], row: RowMapping) -> T:
    """The dataclass of a row, which may have more than that; the reverse of `row_of`."""
    return kind(**{name: read(row[name]) for name, read in _readers(kind).items()})


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
def _readers(kind: Any) -> dict[str, Callable[[Any], Any]]:
    """How to read each field of a dataclass."""
    return {field.name: _reader(field.type) for field in fields(kind)}


def _reader(kind: object) -> Callable[[Any], Any]:
    return kind if isinstance(kind, type) and issubclass(kind, StrEnum) else _kept


def _kept(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
