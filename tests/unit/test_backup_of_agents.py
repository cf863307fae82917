"""What agents do to their folders while a backup is taken."""

import contextlib
import shutil
import sqlite3
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from tests import kept_bridge
from tests.kept_bridge import SECRET, taken

from letta_matrix.cli.backup import taking
from letta_matrix.cli.backup.archive import read

bridge, stack = kept_bridge.bridge, kept_bridge.stack


def notes_in(file: Path) -> Path:
    """The agent's database in a backup."""
    into = file.with_name("laid")
    into.mkdir()
    read(file, SECRET, into)
    return into / "workspace/notes.db"


@pytest.fixture
def notes(stack: Path) -> Path:
    path = stack.parent / "workspace/notes.db"
    path.unlink()
    return path


def test_a_database_of_theirs_is_copied_with_its_log(
    stack: Path, notes: Path, tmp_path: Path
) -> None:
    with contextlib.closing(sqlite3.connect(notes)) as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("CREATE TABLE notes (text)")
        database.commit()
        database.execute("INSERT INTO notes VALUES ('in the log alone')")
        database.commit()
        assert b"in the log alone" not in notes.read_bytes()
        taken(stack, tmp_path / "b", servers=True)
    with contextlib.closing(sqlite3.connect(notes_in(tmp_path / "b"))) as copy:
        assert copy.execute("SELECT text FROM notes").fetchall() == [("in the log alone",)]


def test_a_link_in_the_place_of_a_database_leads_nowhere(
    stack: Path, notes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is put there just before SQLite opens something."""
    with contextlib.closing(sqlite3.connect(notes)) as database:
        database.execute("CREATE TABLE notes (text)")
        database.commit()
    connect, is_database, armed = sqlite3.connect, taking.is_database, list[bool]()

    def look(content: BinaryIO) -> bool:
        found = is_database(content)
        armed.extend([True] * found)
        return found

    def open_late(*args: Any, **named: Any) -> sqlite3.Connection:
        if armed and not notes.is_symlink():
            notes.unlink()
            notes.symlink_to(stack.parent / "letta-matrix.db")
        return connect(*args, **named)

    monkeypatch.setattr(taking, "is_database", look)
    monkeypatch.setattr(sqlite3, "connect", open_late)
    taken(stack, tmp_path / "b", servers=True)
    assert notes.is_symlink()
    with contextlib.closing(connect(notes_in(tmp_path / "b"))) as copy:
        names = copy.execute("SELECT name FROM sqlite_master").fetchall()
    assert names == [("notes",)]


def test_a_link_in_the_place_of_a_log_leads_nowhere(
    stack: Path, notes: Path, tmp_path: Path
) -> None:
    with contextlib.closing(sqlite3.connect(notes)) as database:
        database.execute("CREATE TABLE notes (text)")
        database.commit()
    shutil.copy(stack.parent / "admin.password", tmp_path / "secret")
    notes.with_name("notes.db-wal").symlink_to(tmp_path / "secret")
    taken(stack, tmp_path / "b", servers=True)
    assert notes_in(tmp_path / "b").read_bytes() == notes.read_bytes()
