"""The migrations bring any database to the schema the code knows."""

import asyncio
import os
import sqlite3
import stat
import sys
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine
from structlog.testing import capture_logs
from tests import unsynced

from letta_matrix.store.agents import AgentDirectory
from letta_matrix.store.database import HEAD, Database, StoreError, database_url
from letta_matrix.store.inbox import Inbox
from letta_matrix.store.migrate import alembic_config
from letta_matrix.store.outbox import Outbox
from letta_matrix.store.places import Place
from letta_matrix.store.schema import metadata
from letta_matrix.store.turns import Turn, TurnKind, TurnStatus, TurnStore

HOLDER = """
import asyncio, sys
from pathlib import Path
from letta_matrix.store.database import Database, database_url

async def hold():
    path = Path(sys.argv[1])
    database = Database(database_url(f"sqlite:///{path.name}", path.parent))
    await database.open()
    print("open", flush=True)
    await asyncio.sleep(3600)

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
    assert "UNIQUE" in sql["conversations_current"]
    assert "WHERE current" in sql["conversations_current"]


def of_the_first_schema(path: Path) -> None:
    """A database as an earlier letta-matrix left it, with a turn in flight and one that is done."""
    command.upgrade(alembic_config(f"sqlite:///{path}"), "0001")
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA foreign_keys=ON")
    connection.executescript(
        """
        INSERT INTO agents (agent_id, runtime, name, user_id, room_id, status, applied, created_at)
        VALUES ('agent-1', 'memory', 'Ada', '@agent_1:test', '!1:test', 'active', '{}', 1.5);
        INSERT INTO conversations VALUES ('agent-1', '!1:test', 'c1', 2.5);
        INSERT INTO conversations VALUES ('agent-1', '!2:test', 'c2', 3.5);
        INSERT INTO inbox (event_id, room_id, state, received_at, event)
        VALUES ('$gone', '!1:test', 'routed', 1, '{}'),
               ('$open', '!1:test', 'routed', 2, '{}'),
               ('$early', '!9:test', 'parked', 3, '{"event_id": "$early"}');
        INSERT INTO turns (turn_id, agent_id, room_id, event_id, sender, sent_at, prompt, status,
                           outcome, conversation_id, runtime_state, asked, finished_at)
        VALUES ('turn-gone', 'agent-1', '!1:test', '$gone', '@ann:test', 1, 'old', 'done',
                'answered', 'c1', NULL, 0, 9),
               ('turn-open', 'agent-1', '!1:test', '$open', '@ann:test', 2, 'new', 'running',
                NULL, 'c1', '{"run": "r1"}', 1, NULL),
               ('turn-last', 'agent-1', '!1:test', '$last', '@ann:test', 2, NULL, 'queued',
                NULL, NULL, NULL, 0, NULL);
        INSERT INTO outbox (txn_id, turn_id, seq, kind, part, room_id, sender, content, event_id)
        VALUES ('x1', 'turn-open', 0, 'message', 0, '!1:test', '@agent_1:test',
                '{"body": "half"}', '$reply');
        DELETE FROM turns WHERE turn_id = 'turn-last';
        """
    )
    connection.close()


@pytest.fixture(scope="module")
async def upgraded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database of the first schema that the bridge has opened."""
    path = tmp_path_factory.mktemp("upgraded") / "letta-matrix.db"
    of_the_first_schema(path)
    database = opened(path)
    with capture_logs() as logs:
        await database.open()
    await database.close()
    assert [line["event"] for line in logs] == ["database migrated"]
    return path


async def test_an_earlier_schema_is_brought_up_with_all_it_holds(upgraded: Path) -> None:
    database = opened(upgraded)
    await database.open()
    turns = TurnStore(database)
    await turns.conversations.load()
    (running,) = await turns.unfinished()
    assert running == Turn(
        "turn-open",
        "agent-1",
        "!1:test",
        "$open",
        "@ann:test",
        2.0,
        "new",
        TurnStatus.RUNNING,
        seq=2,
        conversation_id="c1",
        runtime_state={"run": "r1"},
        asked=1,
        kind=TurnKind.MESSAGE,
        thread_id="",
        reply_to=None,
        attachment=None,
        hops=0,
    )
    (entry,) = await Outbox(database).of_turn("turn-open")
    assert (entry.txn_id, entry.content, entry.event_id) == ("x1", {"body": "half"}, "$reply")
    for room_id, conversation_id in (("!1:test", "c1"), ("!2:test", "c2")):
        assert turns.conversations.current(Place("agent-1", room_id)) == conversation_id
    (one,) = await turns.conversations.all_in("agent-1", "!1:test")
    assert (one.created_at, one.used_at, one.current, one.title) == (2.5, 2.5, True, "")
    assert await Inbox(database).parked_rooms() == ["!9:test"]
    directory = AgentDirectory(database)
    await directory.load()
    assert [agent.name for agent in directory.all()] == ["Ada"]
    await database.close()


def test_an_earlier_schema_becomes_the_same_as_a_new_one(upgraded: Path, migrated: Path) -> None:
    schema = _schema(upgraded)
    assert schema == _schema(migrated)
    # Turns are run in the order of their numbers, so that none may be given twice.
    assert "AUTOINCREMENT" in schema["turns"]
    connection = sqlite3.connect(upgraded)
    assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()


def test_a_turn_needs_no_agent_and_an_event_needs_its_turn(database_file: Path) -> None:
    connection = sqlite3.connect(database_file)
    connection.execute("PRAGMA foreign_keys=ON")
    keys = {
        table: [row[2] for row in connection.execute(f"PRAGMA foreign_key_list({table})")]
        for table in ("turns", "outbox", "approvals")
    }
    connection.close()
    assert keys == {"turns": [], "outbox": ["turns"], "approvals": ["turns"]}


def test_a_place_has_one_current_conversation(database_file: Path) -> None:
    connection = sqlite3.connect(database_file)
    insert = (
        "INSERT INTO conversations (agent_id, room_id, thread_id, conversation_id, title, current, "
        "created_at, used_at) VALUES ('a', '!1', ?, 'c', '', ?, 0, 0)"
    )
    for thread_id, current in (("", True), ("", False), ("", False), ("$root", True)):
        connection.execute(insert, (thread_id, current))
    with pytest.raises(sqlite3.IntegrityError):
        connection.execute(insert, ("", True))
    connection.close()


def _schema(path: Path) -> dict[str, str]:
    """The statements that make a database's tables and indexes, without their white space."""
    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL")
    schema = {name: "".join(sql.split()) for name, sql in rows}
    connection.close()
    return schema


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
    with unsynced.as_always():
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
    with pytest.raises(StoreError, match="file is not a database; move it away"):
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

    def work(connection: Connection) -> None:
        nonlocal inside
        inside += 1
        assert inside == 1
        # Long enough, and without the interpreter's lock, for another to come in.
        connection.exec_driver_sql(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50000) "
            "SELECT count(*) FROM n"
        ).scalar_one()
        assert inside == 1
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
