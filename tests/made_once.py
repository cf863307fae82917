"""What every bridge makes when it begins, and with what it does for the first time, is the same in
all: of the thousands that begin in a process of the tests the first makes it for the others, as a
real one does for all its life."""

from collections.abc import Callable, Iterator
from functools import cache
from types import ModuleType
from typing import Any, TypeVar, get_type_hints

from fastapi import APIRouter
from httpx import create_ssl_context
from httpx._transports import default as transports
from sqlalchemy import URL, Engine, create_engine

from letta_matrix import operations
from letta_matrix.doors.rest import app, passing
from letta_matrix.operations import registry
from letta_matrix.operations.toolbox import tool
from letta_matrix.store import sqlite_engine

T = TypeVar("T")

_hints_of = cache(get_type_hints)
_owners = registry.owners


def in_this_process() -> None:
    """From now on."""
    sqlite_engine.create_engine = _engine
    tool.get_type_hints, registry.owners = _hints, _found
    app.operations_router = _router
    # To read the authorities of the world takes a client longer than most tests do.
    transports.__dict__["create_ssl_context"] = cache(create_ssl_context)


def _engine(url: URL, **options: Any) -> Engine:
    """One that knows the SQL of all statements that any has compiled."""
    made, known = create_engine(url, **options), _knowing()
    made.dialect, made._compiled_cache = known.dialect, known._compiled_cache
    return made


@cache
def _knowing() -> Engine:
    engine = create_engine("sqlite+pysqlite://", query_cache_size=5000)
    # What a dialect asks of the first database that it meets.
    engine.connect().close()
    engine.dispose()
    return engine


def _hints(run: Callable[..., Any]) -> dict[str, Any]:
    return _hints_of(getattr(run, "__func__", run))


def _found() -> Iterator[ModuleType | type]:
    yield from _made(_all_owners, *operations.__path__)


def _router() -> APIRouter:
    return _made(passing.operations_router, *operations.__path__)


def _all_owners() -> list[ModuleType | type]:
    return list(_owners())


@cache
def _made(make: Callable[[], T], *folders: str) -> T:
    """What is made of the operations that stand in these folders."""
    del folders
    return make()
