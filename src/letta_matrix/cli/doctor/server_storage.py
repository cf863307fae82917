"""Checks of a database on a PostgreSQL server."""

import time
from dataclasses import dataclass

from sqlalchemy import text

from letta_matrix.cli.doctor.finding import Finding, Findings, fine, warning
from letta_matrix.common.loopback import is_loopback
from letta_matrix.matrix.media import human_size
from letta_matrix.store.database import HEAD, Database, StoreError

_APART = 5.0
"""Seconds between two clocks that nobody notices."""
_ABOUT = text(
    "SELECT split_part(current_setting('server_version'), ' ', 1) AS version, "
    "inet_server_addr() IS NOT NULL AS far, "
    "extract(epoch FROM clock_timestamp())::float8 AS now, "
    "pg_database_size(current_database()) AS size, "
    "(SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()) AS encrypted, "
    "(SELECT rolsuper FROM pg_roles WHERE rolname = current_user) AS super, "
    "coalesce(has_schema_privilege(current_schema(), 'CREATE'), false) AS makes, "
    # Whatever tells how long a statement took tells the statement.
    "(current_setting('log_statement') IN ('mod', 'all') "
    "OR current_setting('log_min_duration_statement') <> '-1' "
    "OR current_setting('log_transaction_sample_rate') <> '0' "
    "OR (current_setting('log_min_duration_sample') <> '-1' "
    "AND current_setting('log_statement_sample_rate') <> '0')) "
    "AND current_setting('log_parameter_max_length') <> '0' AS logs"
)
_NOTHING = text("DELETE FROM meta WHERE false")


@dataclass(frozen=True, slots=True)
class Server:
    """What a server tells of itself and of us: its version, whether it is reached over a network
    and that is encrypted, its clock (Unix time), the bytes that the database takes, whether our
    user may do everything there, or at least make tables, and whether the server `logs` what it
    is told."""

    version: str
    far: bool
    now: float
    size: int
    encrypted: bool
    super: bool
    makes: bool = True
    logs: bool = False


async def examine_server(database: Database, host: str) -> tuple[Findings, str | None]:
    """What is wrong with the server on `host`, and the schema that is there. Raises StoreError."""
    await database.check()
    before = time.time()
    row = await database.read(lambda db: dict(db.execute(_ABOUT).mappings().one()))
    took = time.time() - before
    revision = await database.revision()
    if revision is not None:
        # Whether it could be, and nothing else.
        await database.write(lambda db: db.execute(_NOTHING))
    server = Server(**row)
    if (revision is None or revision < HEAD) and not server.makes:
        raise StoreError(
            "the bridge's user may make no tables in the database",
            "make it the owner of the database and its schema, or correct its `search_path`",
        )
    return judge_server(server, host, before + took / 2, took / 2), revision


def judge_server(server: Server, host: str, now: float, unsure: float = 0.0) -> Findings:
    """What is to be said of it, `now` by our own clock, give or take `unsure` seconds."""
    about = fine(
        f"PostgreSQL {server.version} at {host}; the database takes {human_size(server.size)}"
    )
    wrong = (_open_to_all(server, host), _power(server), _logs(server), _clock(server, now, unsure))
    return [about, *filter(None, wrong)]


def _open_to_all(server: Server, host: str) -> Finding | None:
    if server.encrypted or not server.far or is_loopback(host):
        return None
    return warning(
        f"what the bridge keeps goes to {host} unencrypted",
        "give the server a certificate and add `?sslmode=verify-full` to `database.url`",
        shows="whoever is in between reads messages and tokens' digests, and can change them",
    )


def _power(server: Server) -> Finding | None:
    if not server.super:
        return None
    return warning(
        "the bridge's user is a superuser of the PostgreSQL server",
        "make one that owns this database and nothing else, and name it in `database.url`",
        shows="whoever gets hold of the bridge has the whole server",
    )


def _logs(server: Server) -> Finding | None:
    if not server.logs:
        return None
    return warning(
        "the PostgreSQL server writes into its log what the bridge stores (`log_statement`, "
        "`log_min_duration_statement`, or by samples)",
        "`ALTER DATABASE ... SET log_parameter_max_length = 0`, or end those for this database",
        shows="whoever reads that log reads what people write, and agents' passwords",
    )


def _clock(server: Server, now: float, unsure: float) -> Finding | None:
    if abs(server.now - now) <= _APART + unsure:
        return None
    return warning(
        f"the PostgreSQL server's clock and this machine's are {abs(server.now - now):.0f} seconds "
        "apart",
        "let both follow the same time server",
        shows="what several bridges agree on lasts too long, or ends too soon",
    )
