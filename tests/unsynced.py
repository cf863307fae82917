"""Databases that do not wait for the disk: a process that is killed loses nothing by it, only a
machine does, and no test switches one off."""

import sqlite3
from collections.abc import Generator
from contextlib import contextmanager

from letta_matrix.store import database

AS_ALWAYS = database._set_up_sqlite  # pyright: ignore[reportPrivateUsage]


def _set_up_unsynced(connection: sqlite3.Connection, record: object) -> None:
    AS_ALWAYS(connection, record)
    connection.execute("PRAGMA synchronous=OFF").close()


def in_this_process() -> None:
    """Let each `Database` that is made from now on be such a one."""
    database._set_up_sqlite = _set_up_unsynced


@contextmanager
def as_always() -> Generator[None]:
    """A block in which they are made as the product makes them."""
    unsynced, database._set_up_sqlite = database._set_up_sqlite, AS_ALWAYS
    try:
        yield
    finally:
        database._set_up_sqlite = unsynced
