"""What waits for the database together is committed together, and fails alone."""

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Connection, event, insert, select, text
from sqlalchemy.engine import Engine
from sqlalchemy.exc import IntegrityError
from tests.waiting import eventually, settled, within

from letta_matrix.store.database import Database, StoreUnavailable, database_url
from letta_matrix.store.schema import meta

ON_BOTH = True

Work = Callable[[Connection], object]


def put(key: str) -> Work:
    return lambda db: db.execute(insert(meta).values(key=key, value=1))


@contextmanager
def listening(to: str, listener: Callable[[Connection], object]) -> Generator[None]:
    event.listen(Engine, to, listener)
    try:
        yield
    finally:
        event.remove(Engine, to, listener)


async def keys(database: Database) -> list[str]:
    query = select(meta.c.key).where(meta.c.key.like("test %")).order_by(meta.c.key)
    return await database.read(lambda db: list(db.execute(query).scalars()))


class Held:
    """Keeps the database's thread busy until it is let go."""

    def __init__(self, database: Database) -> None:
        self._begun, self._go = threading.Event(), threading.Event()
        self._task = asyncio.create_task(database.write(self._wait))

    async def begun(self) -> None:
        await eventually(self._begun.is_set, what="the thread is busy")

    async def let_go(self) -> None:
        self._go.set()
        await within(self._task)

    def _wait(self, _connection: Connection) -> None:
        self._begun.set()
        self._go.wait(60)


async def together(database: Database, *works: Work) -> list[object]:
    """What becomes of work that waits while the thread is busy, in this order."""
    held = Held(database)
    await held.begun()
    waiting = list[asyncio.Task[object]]()
    for work in works:
        waiting.append(asyncio.create_task(database.write(work)))
        await wait(database, len(waiting))
    await held.let_go()
    return await within(asyncio.gather(*waiting, return_exceptions=True))


async def wait(database: Database, count: int) -> None:
    """Until so much waits for the thread."""
    await eventually(lambda: len(database.commits._waiting) == count)


async def test_what_waits_shares_a_commit(database: Database) -> None:
    commits: list[Connection] = []
    works = [put(f"test {number}") for number in range(9)]
    with listening("commit", commits.append):
        await together(database, *works)
    # The one that held the thread, and one for all the others.
    assert len(commits) == 2
    assert len(await keys(database)) == 9


async def test_order_is_kept_and_the_next_sees_what_was_before(database: Database) -> None:
    seen: list[int] = []

    def count(db: Connection) -> int:
        found = db.execute(select(meta.c.key).where(meta.c.key.like("test %"))).all()
        seen.append(len(found))
        return len(found)

    results = await together(database, count, put("test 1"), count, put("test 2"), count)
    assert (results[0], results[2], results[4]) == (0, 1, 2) == tuple(seen)


async def test_one_that_fails_takes_nothing_with_it(database: Database) -> None:
    def half(db: Connection) -> None:
        put("test half")(db)
        raise LookupError("not this")

    def twice(db: Connection) -> None:
        put("test twice")(db)
        put("test twice")(db)

    works = (put("test 1"), half, put("test 2"), twice, put("test 3"))
    results = await together(database, *works)
    assert isinstance(results[1], LookupError)
    assert isinstance(results[3], IntegrityError)
    assert await keys(database) == ["test 1", "test 2", "test 3"]
    assert not database.trouble


async def test_a_fault_of_the_database_fails_all_that_shared_it(database: Database) -> None:
    broken: Work = lambda db: db.execute(text("SELECT * FROM nowhere"))  # noqa: E731
    results = await together(database, put("test 1"), broken, put("test 2"))
    assert [type(result) for result in results] == [StoreUnavailable] * 3
    assert await keys(database) == []
    await database.write(put("test 4"))
    assert await keys(database) == ["test 4"]
    assert not database.trouble


async def test_what_another_process_writes_meanwhile_fails_nothing(
    database: Database, database_file: Path
) -> None:
    def work(db: Connection) -> None:
        assert not db.execute(select(meta.c.key).where(meta.c.key == "test 1")).all()
        with (
            closing(sqlite3.connect(database_file, timeout=0)) as other,
            pytest.raises(sqlite3.OperationalError, match="locked"),
        ):
            other.execute("INSERT INTO meta (key, value) VALUES ('test 0', '1')")
        put("test 1")(db)

    await database.write(work)
    assert await keys(database) == ["test 1"]


async def test_who_no_longer_waits_is_left_out(database: Database) -> None:
    held = Held(database)
    await held.begun()
    given_up = asyncio.create_task(database.write(put("test 1")))
    kept = asyncio.create_task(database.write(put("test 2")))
    await wait(database, 2)
    given_up.cancel()
    await held.let_go()
    await within(kept)
    assert await keys(database) == ["test 2"]


async def test_where_nobody_waits_any_more_nothing_is_committed(database: Database) -> None:
    commits: list[Connection] = []
    held = Held(database)
    await held.begun()
    given_up = asyncio.create_task(database.write(put("test 1")))
    await wait(database, 1)
    given_up.cancel()
    with listening("commit", commits.append):
        await held.let_go()
        assert await keys(database) == []
    assert len(commits) == 1


async def test_more_than_one_commit_takes(database: Database) -> None:
    works = [put(f"test {number}") for number in range(200)]
    await together(database, *works)
    assert len(await keys(database)) == 200


async def test_what_waits_while_it_is_closed_is_written(tmp_path: Path) -> None:
    url = database_url("sqlite:///a.db", tmp_path)
    database = Database(url)
    await database.open()
    held = Held(database)
    await held.begun()
    writes = [asyncio.create_task(database.write(put(f"test {one}"))) for one in range(200)]
    await wait(database, 200)
    closing = asyncio.create_task(database.close())
    await settled()
    await held.let_go()
    await within(asyncio.gather(*writes, closing))
    again = Database(url)
    await again.open()
    assert len(await keys(again)) == 200
    await again.close()


async def test_nobody_waits_for_a_closed_database(tmp_path: Path) -> None:
    database = Database(database_url("sqlite:///a.db", tmp_path))
    await database.open()
    await database.close()
    for _ in range(2):
        with pytest.raises(RuntimeError):
            await within(database.write(put("test 1")))
