"""Synapse's database file: whole, or left half made by a first start that was stopped.

Synapse makes its tables in steps that it cannot repeat: where it was stopped between
them, a half-made database would end every later start.
"""

import contextlib
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from letta_matrix.common.private_files import write_private

_NOTE = "Synapse has been ready with the database beside this file: it is never thrown away.\n"


@dataclass(frozen=True, slots=True)
class HomeserverDatabase:
    """The SQLite database at `path`, and the note beside it that it is whole."""

    path: Path

    def discard_half_made(self) -> bool:
        """Throw away a database that Synapse was never ready with; tells whether there was one.

        One without a note is older than the notes if it has users: it stays, and so does
        whatever cannot be read. Call it only while no Synapse runs on it.
        """
        if not self.path.exists() or self._note.exists() or _may_be_whole(self.path):
            return False
        # The database last: ended in between, the next start finds it half made again.
        for suffix in ("-wal", "-shm", "-journal", ""):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
        return True

    def note_whole(self) -> None:
        """Remember that Synapse is ready with it."""
        if not self._note.exists():
            write_private(self._note, _NOTE)

    @property
    def _note(self) -> Path:
        return self.path.with_name(f"{self.path.name}.whole")


def _may_be_whole(path: Path) -> bool:
    try:
        # Not read-only: what a killed Synapse left in its journal has to be taken in first.
        with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True)) as database:
            tables = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'users'"
            if database.execute(tables).fetchone() is None:
                return False
            return database.execute("SELECT 1 FROM users LIMIT 1").fetchone() is not None
    except sqlite3.Error:
        return True
