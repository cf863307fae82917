"""A database that somebody writes to without a pause."""

import contextlib
import sqlite3
import threading
from collections.abc import Generator
from pathlib import Path


@contextlib.contextmanager
def talking(path: Path, rows: int = 300) -> Generator[list[int]]:
    """Somebody writes into a database, always two rows at a time; tells how often."""
    ended, written = threading.Event(), list[int]()
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("CREATE TABLE said (number)")
        database.executemany("INSERT INTO said VALUES (?)", [(0,)] * rows)
        database.commit()

    def write() -> None:
        with contextlib.closing(sqlite3.connect(path, timeout=30)) as database:
            while not ended.is_set():
                for _ in range(2):
                    database.execute("INSERT INTO said VALUES (?)", (len(written),))
                database.commit()
                written.append(len(written))

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield written
    finally:
        ended.set()
        thread.join()


def count(path: Path) -> int:
    """How many rows there are."""
    with contextlib.closing(sqlite3.connect(path)) as database:
        return int(database.execute("SELECT count(*) FROM said").fetchone()[0])
