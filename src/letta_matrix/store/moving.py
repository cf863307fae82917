"""Brings everything from one database into another, between SQLite and PostgreSQL or not."""

import asyncio
from collections.abc import Callable

from sqlalchemy import URL, Connection, delete

from letta_matrix.store.copying import Copied, clear, copy_rows, is_empty
from letta_matrix.store.database import HEAD, UNFINISHED, Database, file_of
from letta_matrix.store.faults import StoreError
from letta_matrix.store.schema import meta

Tell = Callable[[Copied], None]


async def move(source: URL, target: URL, tell: Tell = lambda _: None) -> None:
    """Copy all of `source`, which stays as it is, into an empty `target`; each table is told of
    when it is there. Nobody else may have either open. A copy that was cut off is begun anew, and
    until it is whole no bridge starts on it.

    Raises:
        StoreError: nothing was copied.
    """
    if source == target:
        raise StoreError("both are the same database", "name another one to copy into")
    async with await _there(source) as old:
        await old.take(alone=True)
        if (revision := await old.revision()) != HEAD:
            raise StoreError(
                f"the database to copy has the schema {revision or '(none)'}, this letta-matrix "
                f"needs {HEAD}",
                "start the bridge of this version on it once",
            )
        await _fill(target, old, str(source.render_as_string()), tell)


async def save(source: URL, target: URL) -> None:
    """Copy `source` as it is at one moment, whoever writes to it, into a new `target`. Raises
    StoreError."""
    async with Database(source) as old:
        if (revision := await old.revision()) != HEAD:
            raise StoreError(
                f"the database has the schema {revision or '(none)'}, this letta-matrix needs "
                f"{HEAD}",
                "start the bridge of this version once",
            )
        await _fill(target, old, "", lambda _: None)


async def _there(url: URL) -> Database:
    """A database that is there. Raises StoreError."""
    file = file_of(url)
    if file is not None and not await asyncio.to_thread(file.is_file):
        raise StoreError(f"{file}: no database there", "name the bridge's own")
    return Database(url)


async def _fill(target: URL, old: Database, source: str, tell: Tell) -> None:
    async with Database(target) as new:
        await new.take(alone=True)
        if await new.revision() is not None:
            await _check_free(new, source)
        await new.make()
        await new.write(lambda db: _begin(db, source))
        await new.write(lambda db: _copy(old, db, tell))


async def _check_free(database: Database, source: str) -> None:
    """Raises StoreError where there is something in it, but for a half copy of the same."""
    if await database.revision() != HEAD:
        raise StoreError("the database to copy into is not empty", "name an empty one")
    if await database.copied_from() != source and not await database.read(is_empty):
        raise StoreError("the database to copy into is not empty", "name an empty one")


def _begin(db: Connection, source: str) -> None:
    clear(db)
    db.execute(meta.insert().values(key=UNFINISHED, value=source))


def _copy(old: Database, db: Connection, tell: Tell) -> None:
    # All or nothing: of what is cut off only the note of it is left.
    db.execute(delete(meta).where(meta.c.key == UNFINISHED))
    with old.moment() as source:
        for copied in copy_rows(source, db, old.told):
            tell(copied)
