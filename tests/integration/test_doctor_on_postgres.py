"""What `letta-matrix doctor` says of a database on a PostgreSQL server."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import URL
from tests.postgres import PASSWORD, PostgresServer

from letta_matrix.app.logs import secrets_of
from letta_matrix.cli.doctor.catalogue import CHECKS
from letta_matrix.cli.doctor.examination import examine
from letta_matrix.cli.doctor.finding import Finding, Mark
from letta_matrix.cli.doctor.server_storage import Server, judge_server
from letta_matrix.cli.doctor.subject import Subject
from letta_matrix.config import Config
from letta_matrix.store.database import Database

Configured = Callable[..., Config]


@pytest.fixture
def configured(tmp_path: Path, postgres: PostgresServer) -> Configured:
    tmp_path.chmod(0o700)
    (tmp_path / "config.yaml").touch()

    def made(database: str, **changes: str) -> Config:
        return Config.model_validate(
            {
                "homeserver": {"url": "http://127.0.0.1:1", "domain": "test"},
                "appservice": {"as_token": "as-secret", "hs_token": "hs-secret"},
                "database": postgres.settings_for(database) | changes,
                "directory": tmp_path,
            }
        )

    return made


async def findings(config: Config, *names: str) -> list[Finding]:
    subject = Subject(config, config.directory / "config.yaml", {})
    try:
        found = [one async for one in examine(subject, [c for c in CHECKS if c.name in names])]
    finally:
        await subject.close()
    assert not [s for s in secrets_of(config) for one in found if s in f"{one}"]
    return found


async def test_all_is_well(configured: Configured, postgres_url: URL) -> None:
    found = await findings(configured(str(postgres_url.database)), "database", "disk")
    assert {one.mark for one in found} == {Mark.OK}, found
    assert any("PostgreSQL 16" in one.says and "MB" in one.says for one in found)
    assert any("its schema is current" in one.says for one in found)


async def test_an_empty_one_is_made_at_the_start(
    configured: Configured, postgres: PostgresServer
) -> None:
    found = await findings(configured(postgres.create()), "database")
    assert {one.mark for one in found} == {Mark.OK}, found
    assert any("made or migrated at the next start" in one.says for one in found)


async def test_what_is_wrong(
    configured: Configured, postgres_url: URL, postgres: PostgresServer
) -> None:
    name = str(postgres_url.database)
    (wrong,) = await findings(configured("nowhere"), "database")
    assert "does not exist" in wrong.says
    assert "no message is taken" in wrong.shows
    (wrong,) = await findings(configured(name, password="another one"), "database")
    assert "password authentication failed" in wrong.says
    postgres.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    (wrong,) = await findings(configured(name), "database")
    assert "read-only transaction" in wrong.says
    assert wrong.remedy.startswith("name the primary")


async def test_a_user_who_may_make_no_tables(
    configured: Configured, postgres: PostgresServer
) -> None:
    name = postgres.create()
    postgres.execute(f"ALTER DATABASE {name} OWNER TO postgres")
    (wrong,) = await findings(configured(name), "database")
    assert "may make no tables" in wrong.says
    assert wrong.remedy.startswith("make it the owner")


async def test_who_may_make_no_tables_needs_none_of_a_later_version(
    configured: Configured, postgres: PostgresServer
) -> None:
    name = postgres.migrated()
    later = "UPDATE alembic_version SET version_num = '9999'"
    postgres.execute(later, "REVOKE CREATE ON SCHEMA public FROM bridge, PUBLIC", database=name)
    postgres.execute("ALTER SCHEMA public OWNER TO postgres", database=name)
    postgres.execute("GRANT USAGE ON SCHEMA public TO bridge", database=name)
    found = await findings(configured(name), "database")
    assert "newer letta-matrix" in found[-1].says
    assert not any("may make no tables" in one.says for one in found)


@pytest.mark.parametrize(
    ("settings", "logs"),
    [
        ({"log_statement": "ddl"}, False),
        ({"log_statement": "mod"}, True),
        ({"log_min_duration_statement": "0"}, True),
        ({"log_min_duration_statement": "250ms"}, True),
        ({"log_min_duration_sample": "0"}, True),
        ({"log_min_duration_sample": "0", "log_statement_sample_rate": "0"}, False),
        ({"log_transaction_sample_rate": "0.5"}, True),
        ({"log_min_duration_statement": "0", "log_parameter_max_length": "0"}, False),
    ],
)
async def test_a_log_that_has_what_people_write(
    configured: Configured,
    postgres_url: URL,
    postgres: PostgresServer,
    settings: dict[str, str],
    logs: bool,
) -> None:
    name = str(postgres_url.database)
    postgres.execute(
        *(f"ALTER DATABASE {name} SET {key} = '{value}'" for key, value in settings.items())
    )
    found = await findings(configured(name), "database")
    assert any("writes into its log" in one.says for one in found) is logs


async def test_another_programs_database(configured: Configured, postgres: PostgresServer) -> None:
    name = postgres.create()
    postgres.execute("CREATE TABLE users (x int)", database=name)
    (wrong,) = await findings(configured(name), "database")
    assert "another program keeps its tables there (users)" in wrong.says


async def test_it_writes_nothing(configured: Configured, postgres_url: URL) -> None:
    database = Database(postgres_url)
    await findings(configured(str(postgres_url.database)), "database")
    assert (
        await database.read(lambda db: db.exec_driver_sql("SELECT count(*) FROM meta").scalar())
        == 0
    )
    await database.close()


SERVER = Server("16.1", far=True, now=1000.0, size=10_000_000, encrypted=True, super=False)


@pytest.mark.parametrize(
    ("changes", "host", "says"),
    [
        ({}, "db.example.org", ""),
        ({"encrypted": False}, "db.example.org", "goes to db.example.org unencrypted"),
        ({"encrypted": False}, "127.0.0.1", ""),
        ({"encrypted": False, "far": False}, "/run/postgresql", ""),
        ({"super": True}, "db.example.org", "is a superuser"),
        ({"logs": True}, "db.example.org", "writes into its log"),
        ({"now": 1011.0}, "db.example.org", "are 11 seconds apart"),
    ],
)
def test_a_server_as_it_tells_of_itself(changes: dict[str, object], host: str, says: str) -> None:
    _, *wrong = judge_server(replace(SERVER, **changes), host, 1000.0)
    assert [one.mark for one in wrong] == [Mark.WARNING] * bool(says)
    assert all(says in one.says and one.remedy and one.shows for one in wrong)
    assert PASSWORD not in str(wrong)
