"""A PostgreSQL server that fails while it is used: what people are told, and what goes on."""

import asyncio
from collections.abc import AsyncGenerator
from typing import cast

import psycopg
import pytest
from sqlalchemy import URL, Connection, text
from tests.cut_connections import Relay
from tests.integration import postgres_refusals
from tests.integration.postgres_refusals import can_be_used, failed
from tests.postgres import PostgresServer
from tests.waiting import eventually, within

from letta_matrix.store.database import (
    Database,
    StoreDamaged,
    StoreUnavailable,
)
from letta_matrix.store.faults import StoreUnsure
from letta_matrix.store.meta import Meta
from letta_matrix.store.postgres_connection import PatientConnection
from letta_matrix.store.postgres_engine import PostgresEngine

database = postgres_refusals.database


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


async def test_what_is_committed_is_there_after_a_crash(
    database: Database, postgres: PostgresServer
) -> None:
    """Else no test could tell what a bridge loses from what the server does."""
    for number in range(20):
        await Meta(database).set("committed", str(number))
    postgres.stop("immediate")
    postgres.start()
    await can_be_used(database)
    assert await Meta(database).get("committed") == "19"


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
    assert not relayed.unsure.is_set()
    await can_be_used(relayed)


async def test_where_nobody_can_tell_that_is_said(
    relayed: Database, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PostgresEngine, "patience", 0.1)
    relay.cut_at, relay.heard, relay.shut = b"COMMIT", True, True
    with pytest.raises(StoreUnavailable, match="does not come back to say whether it was"):
        await within(Meta(relayed).set("test", "who knows"))
    assert relayed.unsure.is_set()


async def test_a_server_that_has_begun_anew_since_cannot_tell(
    relayed: Database, relay: Relay, postgres: PostgresServer
) -> None:
    """After a crash, and on another server, a number may be somebody else's."""
    relay.cut_at, relay.heard, relay.shut = b"COMMIT", True, True
    writing = asyncio.create_task(Meta(relayed).set("test", "who knows"))
    await eventually(lambda: not relay.cut_at, what="the commit is sent")
    postgres.stop()
    postgres.start()
    relay.let_in()
    with pytest.raises(StoreUnsure):
        await within(writing)


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


async def test_a_network_that_carries_nothing_is_noticed_soon(
    database: Database, postgres_url: URL
) -> None:
    parameters = await database.read(_parameters)
    assert parameters["connect_timeout"] == "5"
    assert parameters["tcp_user_timeout"] == "9000"
    idle, pause = int(parameters["keepalives_idle"]), int(parameters["keepalives_interval"])
    assert idle + pause * int(parameters["keepalives_count"]) < 10
    assert await database.read(_waits_of_the_server) == ["5", "2", "2", "9000"]
    own = Database(postgres_url.update_query_dict({"tcp_user_timeout": "3000"}))
    assert (await own.read(_parameters))["tcp_user_timeout"] == "3000"
    await own.close()


def _waits_of_the_server(connection: Connection) -> list[str]:
    names = ("keepalives_idle", "keepalives_interval", "keepalives_count", "user_timeout")
    return [str(connection.execute(text(f"SHOW tcp_{name}")).scalar()) for name in names]


def _parameters(connection: Connection) -> dict[str, str]:
    driver = cast("psycopg.Connection[object]", connection.connection.driver_connection)
    return driver.info.get_parameters()
