"""The migrations bring any database to the schema the code knows."""

import asyncio
import os
import sqlite3
import stat
import sys
import time
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine
from structlog.testing import capture_logs

from letta_matrix.store.database import HEAD, Database, StoreError, database_url
from letta_matrix.store.migrate import alembic_config
from letta_matrix.store.schema import metadata

HOLDER = """
import asyncio, sys
from pathlib import Path
from letta_matrix.store.database import Database, database_url

async def hold():
    path = Path(sys.argv[1])
    database = Database(database_url(f"sqlite:///{path.name}", path.parent))
    await database.open()
    print("open", flush=True)
    await asyncio.sleep(60)

asyncio.run(hold())
"""


def opened(path: Path) -> Database:
    return Database(database_url(f"sqlite:///{path.name}", path.parent))


def test_the_code_knows_the_newest_migration() -> None:
    scripts = ScriptDirectory.from_config(alembic_config("sqlite://"))
    assert scripts.get_heads() == [HEAD]


def test_the_migrations_lead_to_the_tables(migrated: Path) -> None:
    engine = create_engine(f"sqlite:///{migrated}")
    with engine.connect() as connection:
        context = MigrationContext.configure(connection)
        # Partial indexes stand in the migrations only.
        differences = [d for d in compare_metadata(context, metadata) if d[0] != "remove_index"]
        assert differences == []
    engine.dispose()


def test_the_indexes_are_partial(migrated: Path) -> None:
    connection = sqlite3.connect(migrated)
    rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'index'")
    sql = {name: text for name, text in rows if text}
    connection.close()
    assert "WHERE status != 'done'" in sql["turns_open"]
    assert "WHERE state = 'parked'" in sql["inbox_parked"]


async def test_opening_a_current_database_changes_nothing(database_file: Path) -> None:
    before = database_file.stat().st_mtime_ns
    database = opened(database_file)
    with capture_logs() as logs:
        await database.open()
    await database.close()
    assert logs == []
    assert database_file.stat().st_mtime_ns == before


async def test_the_database_is_private_and_survives_power_cuts(tmp_path: Path) -> None:
    path = tmp_path / "new folder %20" / "letta-matrix.db"
    database = opened(path)
    await database.open()
    values = await database.read(
        lambda db: [
            db.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys")
        ]
    )
    await database.close()
    assert values == ["wal", 2, 1]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_a_newer_schema_is_left_alone(database_file: Path) -> None:
    connection = sqlite3.connect(database_file)
    connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.commit()
    connection.close()
    database = opened(database_file)
    with pytest.raises(StoreError, match="upgrade letta-matrix"):
        await database.open()
    await database.close()


async def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "letta-matrix.db"
    path.write_bytes(b"this is no database at all" * 100)
    database = opened(path)
    with pytest.raises(StoreError, match="cannot be opened: file is not a database"):
        await database.open()
    await database.close()
    assert path.read_bytes().startswith(b"this is no database")


async def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    database = opened(tmp_path / "file" / "letta-matrix.db")
    with pytest.raises(StoreError, match="cannot be written"):
        await database.open()
    await database.close()


async def test_a_database_somebody_else_fills(tmp_path: Path) -> None:
    path = tmp_path / "letta-matrix.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE turns (x)")
    connection.close()
    database = opened(path)
    with pytest.raises(StoreError, match="could not be migrated"):
        await database.open()
    await database.close()


@pytest.mark.parametrize(
    ("configured", "rendered"),
    [
        ("sqlite:///x.db", "sqlite+pysqlite:////data/x.db"),
        ("sqlite:///", "sqlite+pysqlite:////data/letta-matrix.db"),
        ("sqlite:////var/x.db", "sqlite+pysqlite:////var/x.db"),
    ],
)
def test_database_addresses(configured: str, rendered: str) -> None:
    assert database_url(configured, Path("/data")).render_as_string() == rendered


async def test_one_writer_at_a_time(database: Database) -> None:
    inside = 0

    def work(_connection: object) -> None:
        nonlocal inside
        inside += 1
        assert inside == 1
        time.sleep(0.005)
        inside -= 1

    await asyncio.gather(*(database.write(work) for _ in range(8)))


async def test_a_database_has_one_bridge_at_a_time(database_file: Path) -> None:
    holder, second = opened(database_file), opened(database_file)
    await holder.open()
    assert stat.S_IMODE(database_file.with_name("letta-matrix.db.lock").stat().st_mode) == 0o600
    with pytest.raises(StoreError, match=rf"in use by another letta-matrix \(pid {os.getpid()}\)"):
        await second.open()
    assert await second.read(lambda db: db.exec_driver_sql("SELECT 1").scalar_one()) == 1
    await second.close()
    third = opened(database_file)
    with pytest.raises(StoreError, match="in use"):
        await third.open()
    await third.close()
    await holder.close()
    again = opened(database_file)
    await again.open()
    await again.close()


async def test_a_killed_process_leaves_the_database_free(database_file: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HOLDER, str(database_file), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"open\n"
    database = opened(database_file)
    with pytest.raises(StoreError, match=rf"pid {process.pid}\)"):
        await database.open()
    process.kill()
    await process.wait()
    await database.open()
    await database.close()


async def test_a_link_to_a_database_is_that_database(database_file: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.db"
    link.symlink_to(database_file)
    holder, other = opened(database_file), opened(link)
    await holder.open()
    with pytest.raises(StoreError, match="in use"):
        await other.open()
    await other.close()
    await holder.close()
