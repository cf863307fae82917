"""What the containers of compose.scale.yaml need besides: secrets of Redis and of Synapse's
processes, and the bridges' own user and database."""

import asyncio
from typing import TYPE_CHECKING, Any

from letta_matrix.stack.errors import StackError
from letta_matrix.stack.volumes import Volumes

if TYPE_CHECKING:
    import psycopg

_NAME = "letta_matrix"
_PASSWORD = "bridge/database.password"  # noqa: S105 - the name of a file
_LOOKS, _PAUSE = 240, 0.5


def make_scale_secrets(volumes: Volumes) -> None:
    """Each for its readers."""
    password = volumes.secret("synapse/redis.password", "synapse")
    volumes.put("redis-secret/redis.conf", f'requirepass {password}\nsave ""\n', "redis")
    volumes.secret("synapse/replication.secret", "synapse")
    volumes.secret(_PASSWORD, "bridge")


async def make_database(volumes: Volumes, host: str, port: int) -> None:
    """The bridges' user and database, unless there already; its password is what `volumes` say.
    Waits two minutes for the server: not every engine knows when a container is ready.
    Raises StackError."""
    admins, bridges = (
        volumes.path(name).read_text(encoding="utf-8").strip()
        for name in ("postgres-secret/password", _PASSWORD)
    )
    with await _connected(host, port, admins) as connection:
        _make(connection, bridges)


async def _connected(host: str, port: int, password: str) -> "psycopg.Connection[Any]":
    import psycopg

    reason = ""
    for _ in range(_LOOKS):
        try:
            return psycopg.connect(
                host=host, port=port, user="synapse", dbname="synapse", password=password,
                autocommit=True, connect_timeout=4,
            )  # fmt: skip
        except psycopg.OperationalError as error:
            reason = str(error)
        await asyncio.sleep(_PAUSE)
    raise StackError(f"PostgreSQL does not answer: {reason}")


def _make(connection: "psycopg.Connection[Any]", password: str) -> None:
    from psycopg.sql import SQL, Identifier, Literal

    def is_there(query: str) -> bool:
        return connection.execute(query.encode(), [_NAME]).fetchone() is not None

    name = Identifier(_NAME)
    if not is_there("SELECT 1 FROM pg_roles WHERE rolname = %s"):
        connection.execute(SQL("CREATE ROLE {} LOGIN").format(name))
    connection.execute(SQL("ALTER ROLE {} PASSWORD {}").format(name, Literal(password)))
    if not is_there("SELECT 1 FROM pg_database WHERE datname = %s"):
        how = SQL("CREATE DATABASE {0} OWNER {0} ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C'")
        connection.execute(SQL(" ").join((how.format(name), SQL("TEMPLATE template0"))))
    connection.execute(SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(name))
