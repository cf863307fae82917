"""What PostgreSQL does differently from SQLite, and shows nobody."""

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import URL, Connection, create_engine, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from structlog.testing import capture_logs
from tests.builders import message, new_turn
from tests.integration import postgres_refusals
from tests.postgres import PASSWORD, PostgresServer
from tests.waiting import DEADLINE, eventually, within

from letta_matrix.store.agents import Agent, AgentDirectory
from letta_matrix.store.audit import AuditEntry, AuditStore
from letta_matrix.store.database import (
    HEAD,
    Database,
    StoreError,
    database_url,
)
from letta_matrix.store.faults import LeaseLost
from letta_matrix.store.fence import Fence
from letta_matrix.store.inbox import Inbox, InboxEntry, InboxState
from letta_matrix.store.meta import Meta
from letta_matrix.store.schema import meta, metadata, turns
from letta_matrix.store.tokens import AccessToken, TokenStore
from letta_matrix.store.turns import TurnStore

database = postgres_refusals.database


def empty(postgres: PostgresServer) -> URL:
    return database_url(postgres.url(postgres.create()), Path(), PASSWORD)


async def test_bridges_that_start_together_migrate_once(postgres: PostgresServer) -> None:
    url = empty(postgres)
    bridges = [Database(url) for _ in range(2)]
    with capture_logs() as logs:
        await within(asyncio.gather(*(one.open() for one in bridges)))
    assert {line["event"] for line in logs} <= {"database migrated"}
    assert [await one.revision() for one in bridges] == [HEAD] * 2
    for one in bridges:
        await one.close()
    again = Database(url)
    with capture_logs() as logs:
        await again.open()
    await again.close()
    assert logs == []


async def test_a_bridge_waits_for_another_that_migrates_whatever_is_set_for_other_programs(
    postgres: PostgresServer,
) -> None:
    url = empty(postgres)
    for setting in (
        "default_transaction_isolation = 'repeatable read'",
        "extra_float_digits = -10",
        "client_encoding = 'SQL_ASCII'",
        "DateStyle = 'German'",
        "lock_timeout = 1",
        "idle_session_timeout = 60000",
    ):
        postgres.execute(f"ALTER ROLE bridge IN DATABASE {url.database} SET {setting}")
    database = Database(url)
    with postgres.admin(str(url.database)) as other:
        other.execute("SELECT pg_advisory_lock(7234307587616269)")
        opening = asyncio.create_task(database.open())
        waits = (
            "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE NOT granted "
            "AND clock_timestamp() > query_start + interval '100 ms'"
        )
        await eventually(lambda: other.execute(waits.encode()).fetchone() == (1,))
        assert not opening.done()
        assert await database.revision() is None
        other.execute("SELECT pg_advisory_unlock_all()")
        await within(opening)
    await Meta(database).set("text", "größer 😀")
    assert await Meta(database).get("text") == "größer 😀"
    assert await database.write(_set_for_us) == ("read committed", "0")
    assert await database.read(lambda db: db.execute(_SUM).scalar()) == 0.1 + 0.2
    await database.close()


_SUM = text("SELECT 0.1::float8 + 0.2::float8")


def _set_for_us(db: Connection) -> tuple[str, str]:
    names = "transaction_isolation", "idle_session_timeout"
    isolation, ends = (str(db.execute(text(f"SHOW {name}")).scalar()) for name in names)
    return isolation, ends


async def test_a_newer_schema_is_left_alone(postgres_url: URL, postgres: PostgresServer) -> None:
    newer = "UPDATE alembic_version SET version_num = '9999'"
    postgres.execute(newer, database=str(postgres_url.database))
    database = Database(postgres_url)
    with pytest.raises(StoreError, match="upgrade letta-matrix"):
        await database.open()
    await database.close()


async def test_a_database_somebody_else_fills(postgres: PostgresServer) -> None:
    url = empty(postgres)
    postgres.execute("CREATE TABLE turns (x int)", database=str(url.database))
    database = Database(url)
    with pytest.raises(
        StoreError,
        match=r'could not be migrated.*relation "turns" already exists; name a database of the',
    ):
        await database.open()
    assert await database.revision() is None
    await database.close()


async def test_a_user_who_may_make_no_tables(postgres: PostgresServer) -> None:
    url = empty(postgres)
    owned = f"ALTER DATABASE {url.database} OWNER TO postgres"
    postgres.execute(owned)
    database = Database(url)
    with pytest.raises(StoreError, match=r"permission denied for schema public; make the user .*"):
        await database.open()
    await database.close()


async def test_the_migrations_lead_to_the_tables(postgres_url: URL) -> None:
    engine = create_engine(postgres_url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection)
        # Partial indexes stand in the migrations only.
        differences = [d for d in compare_metadata(context, metadata) if d[0] != "remove_index"]
        assert differences == []
        partial = text(
            "SELECT relname FROM pg_index JOIN pg_class ON oid = indexrelid "
            "WHERE indpred IS NOT NULL"
        )
        assert set(connection.execute(partial).scalars()) == {
            *("inbox_parked", "turns_open", "conversations_current", "ix_turns_waiting"),
            *("turns_joined_to", "turns_revises"),
        }
        sorts = text(
            "SELECT DISTINCT collation_name FROM information_schema.columns WHERE "
            "table_schema = 'public' AND data_type IN ('text', 'character varying')"
        )
        assert connection.execute(sorts).scalars().all() == ["C"]
    engine.dispose()


async def test_texts_are_sorted_by_their_bytes(database: Database) -> None:
    keys = Meta(database)
    for key in ("test b", "test B", "test ä", "test a", "test_"):
        await keys.set(key, "")
    found = select(meta.c.key).where(meta.c.key.startswith("test")).order_by(meta.c.key)
    assert await database.values(found) == ["test B", "test a", "test b", "test ä", "test_"]


async def test_a_message_with_a_null_character_is_answered(database: Database) -> None:
    agents = await AgentDirectory(database).load()
    await agents.reserve([Agent("agent-1", "memory", "A\0da", "@agent_1:test", room_id="!1:test")])
    event = message("he\0llo")
    entry = InboxEntry(
        str(event["event_id"]),
        "!1:test",
        event,
        InboxState.PARKED,
        [new_turn(event, "agent-1", "he\0llo")],
    )
    await Inbox(database).admit("t\0xn", [entry])
    (turn,) = await TurnStore(database).unfinished()
    assert turn.prompt == "he\ufffdllo"
    (parked,) = await database.rows(text("SELECT event FROM inbox"))  # type: ignore[arg-type]
    assert parked["event"]["content"]["body"] == "he\0llo"
    assert (await AgentDirectory(database).load()).now("agent-1").name == "A\ufffdda"
    store = TokenStore(database)
    assert await store.get("a\0b") is None


async def test_nothing_is_null_where_json_says_null(database: Database) -> None:
    store = TokenStore(database)
    token = AccessToken("t1", "d", "", ("read",), None, "", 1.0)
    await store.add(token)
    assert await store.get("t1") == token
    told = text("SELECT rooms IS NULL, rooms::text FROM tokens")
    assert (await database.rows(told))[0].values()  # type: ignore[arg-type]


async def test_numbers_that_are_none_are_null_in_json(database: Database) -> None:
    entry = AuditEntry("p", "u", "api", "tool", "f", 1.0, result={"far": float("inf"), "n": 1})
    stored, _ = await AuditStore(database).begin(entry)
    (found,) = await AuditStore(database).newest(1)
    assert (found.seq, found.result) == (stored.seq, {"far": None, "n": 1})


async def test_numbers_never_come_twice(database: Database) -> None:
    store = AuditStore(database)
    first, _ = await store.begin(AuditEntry("p", "u", "api", "tool", "f", 1.0))
    await store.prune(1)
    second, _ = await store.begin(AuditEntry("p", "u", "api", "tool", "f", 1.0))
    assert second.seq > first.seq


async def test_an_empty_list_finds_nothing(database: Database) -> None:
    assert await database.rows(select(turns).where(turns.c.turn_id.in_([]))) == []
    await Meta(database).forget()


async def test_no_error_has_what_people_wrote(database: Database) -> None:
    private = "-".join(("pass", "word"))
    put = text("INSERT INTO meta (key, value) VALUES (:key, '1')")
    await database.write(lambda db: db.execute(put, {"key": private}))
    with pytest.raises(IntegrityError, match="duplicate key") as caught:
        await database.write(lambda db: db.execute(put, {"key": private}))
    assert private not in str(caught.value)
    assert private not in str(caught.value.orig)
    with pytest.raises(DBAPIError) as caught_again:
        await database.write(
            lambda db: db.execute(text("INSERT INTO meta VALUES (:key)"), {"key": private})
        )
    assert private not in str(caught_again.value)


class Gate(Fence):
    """Lets writes pass as long as it is open."""

    def __init__(self) -> None:
        super().__init__("one", 1, self._at_once)
        self.asked = 0
        self.is_open = True
        self.goes_on = threading.Event()
        self.goes_on.set()

    async def _at_once(self) -> float:
        return 0.0

    def check(self, db: Connection) -> None:
        self.asked += 1
        assert db.in_transaction()
        assert self.goes_on.wait(DEADLINE)
        if not self.is_open:
            raise LeaseLost


@pytest.fixture
async def fenced(database: Database, postgres_url: URL) -> AsyncGenerator[tuple[Database, Gate]]:
    """The same database, with a fence before what is written."""
    gate = Gate()
    fenced = Database(postgres_url, gate)
    yield fenced, gate
    await fenced.close()


async def test_the_fence_is_asked_once_for_each_commit(
    database: Database, fenced: tuple[Database, Gate]
) -> None:
    behind, gate = fenced
    keys = Meta(behind)
    gate.goes_on.clear()
    first = asyncio.create_task(keys.set("test 0", ""))
    await eventually(lambda: gate.asked)
    others = [asyncio.create_task(keys.set(f"test {one}", "")) for one in range(1, 20)]
    await eventually(lambda: len(vars(behind.commits)["_waiting"]), (19).__eq__)
    assert not first.done()
    gate.goes_on.set()
    await within(asyncio.gather(first, *others))
    assert gate.asked == 2
    assert await keys.get("test 19") == ""
    gate.is_open = False
    both = await asyncio.gather(
        keys.set("test a", ""), keys.set("test b", ""), return_exceptions=True
    )
    assert [type(one) for one in both] == [LeaseLost] * 2
    assert behind.trouble is not None
    assert await Meta(database).get("test a") is None
    gate.is_open = True
    await keys.set("test a", "again")
    assert await keys.get("test a") == "again"
    assert behind.trouble is None


async def test_what_is_told_of_a_database_has_no_password(
    database: Database, postgres_url: URL
) -> None:
    assert postgres_url.password == PASSWORD
    for told in (
        str(database._url),
        repr(database._url),
        repr(database._engine),
        str(vars(database)),
    ):
        assert PASSWORD not in told
    assert PASSWORD not in Path(f"/proc/{os.getpid()}/cmdline").read_text()


async def test_sizes_are_told_without_waiting(database: Database) -> None:
    found = await eventually(database.sizes)
    assert found["main"] > found["indexes"] > 0


_LEAN = """
import sys
from pathlib import Path
from letta_matrix.store.database import Database, StoreError, database_url

def use(url):
    try:
        Database(database_url(url, Path()))
    except StoreError as error:
        print(error)
    print(sys.modules.get("psycopg") is not None)

use("sqlite:///x.db")
sys.modules["psycopg"] = None
use("postgresql://u@h/d")
del sys.modules["psycopg"]
use("postgresql://u@h/d")
"""


def test_the_driver_is_only_there_where_it_is_used(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _LEAN], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    assert done.stdout.splitlines() == [
        "False",
        "`database.url` names PostgreSQL, whose driver is not installed; install it: "
        "`pip install 'letta-matrix[postgres]'`",
        "False",
        "True",
    ]
