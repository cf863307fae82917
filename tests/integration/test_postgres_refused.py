"""A PostgreSQL server that is no place for a bridge, or lets none in: what people are told."""

import re
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import URL, Connection, text
from tests.builders import config_for
from tests.certificates import certificates_in
from tests.cut_connections import Relay
from tests.integration.postgres_refusals import refused
from tests.postgres import PASSWORD, PostgresServer
from tests.servers import free_port

from letta_matrix.cli.database import load_agents, open_existing
from letta_matrix.cli.faults import Failure
from letta_matrix.store import postgres_connection, postgres_faults
from letta_matrix.store.database import (
    Database,
    StoreError,
    StoreUnavailable,
    database_url,
)
from letta_matrix.store.meta import Meta
from letta_matrix.store.postgres_engine import IN_USE


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
    ("query", "says"),
    [
        ({"sslmod": "require"}, "does not know, or twice: sslmod; correct it"),
        # What the driver would take for its own.
        ({"prepare_threshold": "0"}, "prepare_threshold"),
        ({"row_factory": "x"}, "row_factory"),
        ({"sslmode": ("require", "disable")}, "twice: sslmode"),
        ({"port": "here"}, "as many ports as servers, each a number"),
        ({"host": ("a:1", "b:2"), "port": "1"}, "twice: host"),
        ({"host": "a,b", "port": "1,2,3"}, "as many ports as servers"),
    ],
)
def test_what_stands_behind_the_address_has_to_mean_something(
    postgres_url: URL, query: dict[str, str | tuple[str, ...]], says: str
) -> None:
    with pytest.raises(StoreError, match=says):
        Database(postgres_url.set(query=query))


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ({"connect_timeout": "soon"}, "bad value for connect_timeout"),
        ({"service": "nowhere"}, 'definition of service "nowhere" not found'),
        ({"target_session_attrs": "any one"}, "invalid target_session_attrs value"),
    ],
)
async def test_a_parameter_that_cannot_be_meant(
    postgres_url: URL, query: dict[str, str], says: str
) -> None:
    fault = await refused(postgres_url.set(query=query))
    assert f"cannot be used now: {says}" in fault.trouble.says
    assert fault.trouble.remedy.startswith("correct `database.url`")


async def test_a_session_that_others_have_too(postgres_url: URL, postgres: PostgresServer) -> None:
    """A pooler by transactions passes on what another connection has set up."""
    name = postgres_url.database
    postgres.execute(f"ALTER DATABASE {name} SET letta_matrix.session = 'is set up'")
    fault = await refused(postgres_url)
    assert isinstance(fault, StoreUnavailable)
    assert "a pooler in between gives our connection to others" in fault.trouble.says
    assert "pool_mode = session" in fault.trouble.remedy
    assert "server_reset_query = DISCARD ALL" in fault.trouble.remedy


async def test_another_programs_database(postgres: PostgresServer) -> None:
    url = database_url(postgres.url(postgres.create()), Path(), PASSWORD)
    there = [f"CREATE TABLE {name} (x int)" for name in ("users", "rooms", "events", "meta", "x")]
    postgres.execute(*there, database=str(url.database))
    fault = await refused(url)
    assert "another program keeps its tables there (events, rooms, users and 1 more)" in str(fault)
    assert "a database of the bridge's own" in fault.trouble.remedy
    # One that Alembic has made, too: its revisions are none of ours.
    version = "CREATE TABLE alembic_version AS SELECT '{}' AS version_num"
    postgres.execute("DROP TABLE meta", version.format("0003"), database=str(url.database))
    assert "another program" in str(await refused(url))
    with postgres.admin(str(url.database)) as admin:
        made = admin.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
        assert made.fetchone() == (5,)


async def test_what_somebody_has_put_beside_the_tables_is_let_alone(
    postgres_url: URL, postgres: PostgresServer
) -> None:
    postgres.execute("CREATE TABLE heartbeats (x int)", database=str(postgres_url.database))
    database = Database(postgres_url)
    await database.open()
    await database.close()


async def test_a_standby_is_read_and_no_place_for_a_bridge(tmp_path: Path) -> None:
    server = PostgresServer({"wal_level": "replica"})
    try:
        server.start()
        name = server.migrated()
        server.stop()
        server.follow()
        server.start()
        fault = await refused(database_url(server.url(name), Path(), PASSWORD))
        config = config_for(tmp_path, database=server.settings_for(name))
        assert await load_agents(config) == []
        with pytest.raises(Failure, match="during recovery; name the primary"):
            async with open_existing(config) as database:
                await Meta(database).set("who", "me")
    finally:
        server.remove()
    assert "is a standby, which can only be read; name the primary" in str(fault)


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        ("FATAL:  the database system is starting up", "wait until it has started"),
        ("FATAL:  the database system is shutting down", "start it again"),
        ("FATAL:  sorry, too many clients already", "max_connections"),
        ('FATAL:  no pg_hba.conf entry for host "10.0.0.1", user "u"', "the user"),
        ("Connection timed out\n\tIs the server running on that host?", "start PostgreSQL"),
        ("server closed the connection unexpectedly", "start it again"),
        ("FATAL:  in a language that nobody here knows", ""),
    ],
)
def test_the_words_of_servers_that_let_nobody_in(words: str, remedy: str) -> None:
    said = f'connection failed: connection to server at "10.0.0.2", port 5432 failed: {words}'
    fault = postgres_faults.fault_of(psycopg.OperationalError(said), "PostgreSQL at db")
    assert remedy in fault.trouble.remedy
    assert bool(fault.trouble.remedy) == bool(remedy)
    told = words.split("\n", maxsplit=1)[0].removeprefix("FATAL:  ")
    assert fault.trouble.says == f"PostgreSQL at db: the database cannot be used now: {told}"


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        ("query_wait_timeout", "see whether PostgreSQL runs behind the pooler"),
        ("server login has been failing, try again later (server_login_retry)", "see whether"),
        ("something that nobody here knows", "start PostgreSQL there"),
        ("transaction blocks not allowed in statement pooling mode", "let the pooler keep"),
        ("bind message supplies 1 parameters, but prepared statement requires 0", "let the pooler"),
    ],
)
def test_the_words_of_poolers(words: str, remedy: str) -> None:
    """Their code is the same for all of them."""
    fault = postgres_faults.fault_of(psycopg.errors.ProtocolViolation(words), "PostgreSQL at db")
    assert fault.trouble.remedy.startswith(remedy)
    assert words in fault.trouble.says


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
    """It is told before anything is set that it does not know."""
    monkeypatch.setattr(postgres_faults, "OLDEST", 990_000)
    monkeypatch.setitem(postgres_connection.SETTINGS, "no_such_timeout", "0")
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
