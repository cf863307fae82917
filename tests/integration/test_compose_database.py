"""The database that compose.scale.yaml makes for the bridges, on a real PostgreSQL."""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from tests.compose_kit import made
from tests.postgres import PASSWORD, PostgresServer

from letta_matrix.stack.compose_scale import make_database, make_scale_secrets
from letta_matrix.stack.volumes import Volumes


@pytest.fixture
def volumes(postgres: PostgresServer, tmp_path: Path) -> Iterator[Volumes]:
    """Those of a first start; the server has what the image of PostgreSQL makes."""
    volumes = made(tmp_path)
    make_scale_secrets(volumes)
    password = volumes.path("postgres-secret/password").read_text().strip()
    postgres.execute(
        f"CREATE ROLE synapse SUPERUSER LOGIN PASSWORD '{password}'", "CREATE DATABASE synapse"
    )
    yield volumes
    for name in ("letta_matrix", "synapse"):
        postgres.drop(name)
        postgres.execute(f"DROP ROLE {name}")


async def test_it_is_made_once_and_for_the_bridges_alone(
    volumes: Volumes, postgres: PostgresServer
) -> None:
    secret = volumes.path("bridge/database.password")
    where = postgres.url("letta_matrix", user="letta_matrix")
    await make_database(volumes, "127.0.0.1", postgres.port)
    with psycopg.connect(where, password=secret.read_text().strip()) as connection:
        connection.execute("CREATE TABLE kept ()")
    # A later start, with another password: what the file says holds, and nothing is lost.
    secret.write_text("another\n")
    await make_database(volumes, "127.0.0.1", postgres.port)
    with psycopg.connect(where, password="another") as connection:
        connection.execute("SELECT FROM kept")
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        psycopg.connect(postgres.url("letta_matrix"), password=PASSWORD)
