"""What tables keep of a dataclass."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any


def row_of(record: Any, *without: str) -> dict[str, Any]:
    """The fields of a dataclass with slots, but for some, as a table has them."""
    names = [name for name in record.__slots__ if name not in without]
    return {name: _plain(getattr(record, name)) for name in names}


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
