"""Databases that do not wait for the disk: a process that is killed loses nothing by it, only a
machine does, and no test switches one off."""

import sqlite3
from collections.abc import Generator
from contextlib import contextmanager

from letta_matrix.store import sqlite_engine

AS_ALWAYS = sqlite_engine._set_up  # pyright: ignore[reportPrivateUsage]


def _set_up_unsynced(connection: sqlite3.Connection, record: object) -> None:
    AS_ALWAYS(connection, record)
    connection.execute("PRAGMA synchronous=OFF").close()


def in_this_process() -> None:
    """Let each `Database` that is made from now on be such a one."""
    sqlite_engine._set_up = _set_up_unsynced


@contextmanager
def as_always() -> Generator[None]:
    """A block in which they are made as the product makes them."""
    unsynced, sqlite_engine._set_up = sqlite_engine._set_up, AS_ALWAYS
    try:
        yield
    finally:
        sqlite_engine._set_up = unsynced
