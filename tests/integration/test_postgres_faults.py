"""A PostgreSQL server that is not as it should be: what people are told, and what goes on."""

import asyncio
import re
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from sqlalchemy import URL, Connection, text
from tests.certificates import certificates_in
from tests.cut_connections import Relay
from tests.postgres import PASSWORD, PostgresServer
from tests.servers import free_port
from tests.waiting import within

from letta_matrix.common.vitals import Trouble
from letta_matrix.store import postgres_faults
from letta_matrix.store.database import (
    Database,
    StoreDamaged,
    StoreError,
    StoreUnavailable,
    database_url,
)
from letta_matrix.store.meta import Meta
from letta_matrix.store.postgres_connection import PatientConnection
from letta_matrix.store.postgres_engine import IN_USE, PostgresEngine


@pytest.fixture
async def database(postgres_url: URL) -> AsyncGenerator[Database]:
    opened = Database(postgres_url)
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
async def relay(postgres: PostgresServer) -> AsyncGenerator[Relay]:
    async with Relay(postgres.port) as made:
        yield made


@pytest.fixture
async def relayed(postgres_url: URL, relay: Relay) -> AsyncGenerator[Database]:
    opened = Database(postgres_url.set(port=relay.port))
    await opened.open()
    yield opened
    await opened.close()


async def refused(url: URL) -> StoreError:
    """What is told of a database that cannot be opened."""
    database = Database(url)
    try:
        with pytest.raises(StoreError) as caught:
            await within(database.open())
    finally:
        await database.close()
    assert PASSWORD not in str(caught.value)
    return caught.value


async def failed(database: Database, work: str) -> Trouble:
    """What is told of a statement that cannot be executed."""
    with pytest.raises(StoreUnavailable) as caught:
        await within(database.write(lambda db: db.execute(text(work))))
    assert PASSWORD not in str(caught.value)
    assert database.outage.is_set()
    assert database.trouble == caught.value.trouble
    return caught.value.trouble


async def can_be_used(database: Database) -> None:
    meta = Meta(database)
    await within(meta.set("test", "here"))
    assert await within(meta.get("test")) == "here"
    assert database.trouble is None


async def test_nothing_listens_there(postgres_url: URL) -> None:
    port = free_port()
    fault = await refused(postgres_url.set(port=port))
    assert isinstance(fault, StoreUnavailable)
    assert f"127.0.0.1:{port}" in fault.trouble.says
    assert "Connection refused" in fault.trouble.says
    assert fault.trouble.remedy == "start PostgreSQL there, or correct `database.url`"


@pytest.mark.parametrize(
    ("parts", "says", "remedy"),
    [
        ({"password": "wrong"}, "password authentication failed", "correct the user"),
        ({"password": None}, "no password supplied", "database.password_file"),
        ({"username": "nobody_here"}, "password authentication failed", "correct the user"),
        ({"database": "nowhere"}, 'database "nowhere" does not exist', "CREATE DATABASE"),
        ({"query": {"sslmode": "require"}}, "server does not support SSL", "sslmode"),
        ({"query": {"sslmode": "no-such"}}, "invalid sslmode", "sslmode"),
        ({"host": "nowhere.invalid"}, "nowhere.invalid", "correct `database.url`"),
    ],
)
async def test_what_keeps_us_out_is_told(
    postgres_url: URL, parts: dict[str, object], says: str, remedy: str
) -> None:
    fault = await refused(postgres_url._replace(**parts))  # type: ignore[arg-type]
    assert says in fault.trouble.says
    assert remedy in fault.trouble.remedy


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("53100", "make room"),
        ("53300", "max_connections"),
        ("57P03", "wait until it has started"),
        ("40P01", "it may pass by itself"),
        ("42501", "owner"),
        ("58030", "disk"),
    ],
)
async def test_what_the_server_cannot_do_is_told(database: Database, code: str, says: str) -> None:
    raised = f"DO $$ BEGIN RAISE EXCEPTION 'it fails' USING ERRCODE = '{code}'; END $$"
    trouble = await failed(database, raised)
    assert trouble.says.endswith("the database cannot be used now: it fails")
    assert says in trouble.remedy
    await can_be_used(database)


async def test_a_damaged_page_stays_told(database: Database) -> None:
    raised = "DO $$ BEGIN RAISE EXCEPTION 'invalid page' USING ERRCODE = 'XX001'; END $$"
    with pytest.raises(StoreDamaged, match=r"damaged \(invalid page\); stop the bridge"):
        await database.write(lambda db: db.execute(text(raised)))
    await Meta(database).set("test", "elsewhere")
    assert database.trouble is not None


async def test_a_statement_that_takes_too_long_is_cancelled(database: Database) -> None:
    trouble = await failed(database, "SET LOCAL statement_timeout = 20; SELECT pg_sleep(60)")
    assert "canceling statement due to statement timeout" in trouble.says
    await can_be_used(database)


async def test_what_somebody_else_holds_is_not_waited_for_long(
    database: Database, postgres_url: URL, postgres: PostgresServer
) -> None:
    with postgres.admin(str(postgres_url.database)) as other, other.transaction():
        other.execute("LOCK TABLE meta")
        trouble = await failed(database, "SET LOCAL lock_timeout = 20; DELETE FROM meta")
    assert "another program holds it" in trouble.remedy
    await can_be_used(database)


async def test_a_connection_that_is_ended_in_the_middle(
    database: Database, postgres: PostgresServer
) -> None:
    trouble = await failed(database, "SELECT pg_terminate_backend(pg_backend_pid())")
    assert "terminating connection" in trouble.says
    await can_be_used(database)


async def test_a_server_that_starts_again_is_not_even_noticed(
    database: Database, postgres: PostgresServer
) -> None:
    await can_be_used(database)
    postgres.stop()
    postgres.start()
    await can_be_used(database)
    assert not database.outage.is_set()


@pytest.mark.parametrize("how", ["fast", "immediate"])
async def test_a_server_that_is_away_for_a_while(
    database: Database, postgres: PostgresServer, how: str
) -> None:
    postgres.stop(how)
    try:
        trouble = await failed(database, "SELECT 1")
        assert "Connection refused" in trouble.says
        with pytest.raises(StoreUnavailable):
            await Meta(database).get("test")
    finally:
        postgres.start()
    await can_be_used(database)


async def test_a_server_that_stands_still_is_given_up(
    database: Database, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await can_be_used(database)
    monkeypatch.setattr(PatientConnection, "patience", 0.3)
    postgres.stand_still()
    try:
        trouble = await failed(database, "SELECT 1")
        assert "no answer" in trouble.says
    finally:
        postgres.go_on()
        monkeypatch.undo()
    await can_be_used(database)


async def test_a_commit_that_was_made_has_gone_well(relayed: Database, relay: Relay) -> None:
    relay.cut_at, relay.heard = b"COMMIT", True
    await within(Meta(relayed).set("test", "written"))
    assert await Meta(relayed).get("test") == "written"
    assert not relayed.outage.is_set()


async def test_a_commit_that_was_not_made_can_be_tried_again(
    relayed: Database, relay: Relay
) -> None:
    relay.cut_at = b"COMMIT"
    with pytest.raises(StoreUnavailable):
        await within(Meta(relayed).set("test", "lost"))
    assert await Meta(relayed).get("test") is None
    await can_be_used(relayed)


async def test_where_nobody_can_tell_that_is_said(
    relayed: Database, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PostgresEngine, "patience", 0.1)
    relay.cut_at, relay.heard, relay.shut = b"COMMIT", True, True
    with pytest.raises(StoreUnavailable, match="does not come back to say whether it was"):
        await within(Meta(relayed).set("test", "who knows"))


async def test_all_that_shared_a_commit_hear_of_it(relayed: Database, relay: Relay) -> None:
    meta = Meta(relayed)
    relay.cut_at, relay.heard = b"COMMIT", True
    await within(asyncio.gather(*(meta.set(f"test {one}", "here") for one in range(9))))
    found = [await meta.get(f"test {one}") for one in range(9)]
    assert found == ["here"] * 9


async def test_a_database_that_is_only_read(
    database: Database, postgres_url: URL, postgres: PostgresServer
) -> None:
    name = postgres_url.database
    postgres.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    again = Database(postgres_url)
    await again.open()
    trouble = await failed(again, "DELETE FROM meta")
    assert "read-only transaction" in trouble.says
    assert "primary" in trouble.remedy
    assert await Meta(again).get("test") is None
    assert again.trouble is not None
    await again.close()


async def test_too_many_connections(postgres_url: URL, postgres: PostgresServer) -> None:
    postgres.execute("ALTER ROLE bridge CONNECTION LIMIT 0")
    try:
        fault = await refused(postgres_url)
    finally:
        postgres.execute("ALTER ROLE bridge CONNECTION LIMIT -1")
    assert "too many connections" in fault.trouble.says
    assert "max_connections" in fault.trouble.remedy


async def test_a_database_of_another_encoding(postgres: PostgresServer) -> None:
    postgres.execute("CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0 OWNER bridge")
    fault = await refused(database_url(postgres.url("latin"), Path(), PASSWORD))
    assert "encoded in LATIN1, not in UTF8; make another one" in str(fault)
    postgres.drop("latin")


async def test_a_server_that_is_too_old(postgres_url: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_faults, "OLDEST", 990_000)
    fault = await refused(postgres_url)
    assert re.search(r"is PostgreSQL \d\d, and at least 99 is needed; upgrade", str(fault))


async def test_one_that_somebody_has_for_themselves(
    postgres_url: URL, postgres: PostgresServer
) -> None:
    with postgres.admin(str(postgres_url.database)) as other:
        other.execute("SELECT pg_advisory_lock(%s)", (IN_USE,))
        assert "being copied or put back" in str(await refused(postgres_url))
    database = Database(postgres_url)
    await database.open()
    with postgres.admin(str(postgres_url.database)) as other:
        alone = "SELECT pg_try_advisory_lock(%s)"
        assert other.execute(alone, (IN_USE,)).fetchone() == (False,)
    await database.close()


@pytest.mark.parametrize(
    ("host", "mode", "trusts", "says"),
    [
        ("localhost", "verify-full", True, ""),
        ("127.0.0.1", "verify-full", True, "does not match host name"),
        ("localhost", "verify-full", False, "certificate"),
        ("127.0.0.1", "require", False, ""),
    ],
)
async def test_tls_is_as_the_address_says(
    postgres: PostgresServer,
    postgres_url: URL,
    tmp_path: Path,
    host: str,
    mode: str,
    *,
    trusts: bool,
    says: str,
) -> None:
    files = certificates_in(tmp_path, "localhost")
    query = {"sslmode": mode} | ({"sslrootcert": str(files.authority)} if trusts else {})
    async with Relay(postgres.port, files.server) as server:
        url = postgres_url.set(host=host, port=server.port, query=query)
        if says:
            fault = await refused(url)
            assert says in fault.trouble.says
            assert "sslrootcert" in fault.trouble.remedy
            return
        database = Database(url)
        await database.open()
        # Whatever TLS itself says between two answers is no goodbye.
        assert len({await database.read(_pid) for _ in range(3)}) == 1
        await database.close()
        assert server.encrypted


def _pid(connection: Connection) -> int:
    return int(connection.execute(text("SELECT pg_backend_pid()")).scalar_one())
