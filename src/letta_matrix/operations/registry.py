"""All operations there are: those that the files of this folder declare."""

import importlib
import pkgutil
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from types import ModuleType
from typing import Any

from letta_matrix import operations
from letta_matrix.operations.given import Given
from letta_matrix.operations.operation import Operation
from letta_matrix.operations.toolbox.tool import tools_in


def owners() -> Iterator[ModuleType | type]:
    """The modules with operations, and the classes with some."""
    for found in pkgutil.iter_modules(operations.__path__):
        module = importlib.import_module(f"{operations.__name__}.{found.name}")
        yield module
        for value in vars(module).values():
            if isinstance(value, type) and value.__module__ == module.__name__ and _in(value):
                yield value


def operations_with(given: Given) -> list[Operation[Any]]:
    """The operations, with what they work with."""
    return [one for owner in owners() for one in _in(_made(owner, given))]


@cache
def every() -> tuple[Operation[Any], ...]:
    """The operations as they are declared; they cannot be run."""
    return tuple(one for owner in owners() for one in _in(owner))


def _in(owner: object) -> list[Operation[Any]]:
    return [one for one in tools_in(owner) if isinstance(one, Operation)]


def _made(owner: Any, given: Given) -> object:
    """A class is given what its fields are called."""
    if isinstance(owner, ModuleType):
        return owner
    return owner(*(getattr(given, field.name.lstrip("_")) for field in fields(owner)))
