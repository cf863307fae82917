"""The bridge's database in a backup: which schema it has, and what it has to learn before it is
used again."""

import asyncio
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import URL

from letta_matrix.cli.backup.copies import check_database
from letta_matrix.cli.backup.faults import BackupError
from letta_matrix.store.agents import AgentDirectory
from letta_matrix.store.database import Database, StoreError, database_url
from letta_matrix.store.forgetting import forget_agents, forget_home
from letta_matrix.store.meta import Meta
from letta_matrix.store.moving import save
from letta_matrix.store.restored import Gap, forbid_as_in, forbid_unseen, note_gap


@dataclass(frozen=True, slots=True)
class Ended:
    """How many tokens are revoked by a restore, and whether anybody could tell which are to be."""

    tokens: int
    seen: bool


def schema_of(path: Path) -> str:
    """The revision of a database's schema. Raises BackupError where it is not the bridge's."""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
            found = database.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.Error:
        found = None
    if found is None:
        raise BackupError(f"{path}: it is no database of letta-matrix, or was never used")
    return str(found[0])


def copy_from_server(source: URL, target: Path) -> None:
    """Copy a database of PostgreSQL as it is at one moment, whoever writes to it, into a new file
    of SQLite, and look at the copy.

    Raises:
        StoreError: it cannot be read.
    """
    asyncio.run(save(source, database_url(f"sqlite:///{target}", target.parent)))
    with closing(sqlite3.connect(target)) as copy:
        # One file, without a log beside it.
        copy.execute("PRAGMA journal_mode=DELETE").fetchone()
    target.with_name(f"{target.name}.lock").unlink()
    check_database(target)


def prepare(
    restored: Path, present: Path | None, gap: Gap, *, same_moment: bool, keeps_tokens: bool
) -> Ended:
    """Make a database that was laid, but is in no use yet, ready for its place. `present` is the
    one there, if any is newer than the backup; `same_moment`: the homeserver is put back too.

    Raises:
        StoreError: it cannot be used.
    """
    return asyncio.run(
        _prepare(restored, present, gap, same_moment=same_moment, keeps_tokens=keeps_tokens)
    )


async def _prepare(
    restored: Path, present: Path | None, gap: Gap, *, same_moment: bool, keeps_tokens: bool
) -> Ended:
    async with _database(restored) as database:
        await database.open()
        await note_gap(database, gap)
        if not same_moment:
            # Whatever happened there since is looked at anew.
            directory = await AgentDirectory(database).load()
            ids = [one.agent_id for one in directory.all()]
            await forget_agents(directory, ids, new_room=False)
            await forget_home(Meta(database))
        ended = None if present is None else await _as_in(database, present)
        if ended is not None:
            return Ended(ended, seen=True)
        return Ended(0 if keeps_tokens else await forbid_unseen(database), seen=False)


async def _as_in(database: Database, present: Path) -> int | None:
    """How many tokens end, None where the database in place cannot be read."""
    async with _database(present) as other:
        try:
            return await forbid_as_in(database, other)
        except StoreError:
            return None


def _database(path: Path) -> Database:
    return Database(database_url(f"sqlite:///{path}", path.parent))
