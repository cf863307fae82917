"""Alembic's entry: runs the migrations on the database it is pointed at."""

from typing import Any

from alembic import context
from sqlalchemy import URL, Connection, String, Text, create_engine, make_url, text
from sqlalchemy.ext.compiler import compiles

from letta_matrix.store.database import file_of
from letta_matrix.store.schema import metadata

_ONE_AT_A_TIME = text("SELECT pg_advisory_xact_lock(7234307587616269)")
"""Of several bridges that start together one migrates, and the others wait and find it done."""
_PATIENT = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
"""What the server, the database or the user has for other programs; a migration may take longer."""


@compiles(Text, "postgresql")
@compiles(String, "postgresql")
def _in_the_order_of_bytes(kind: String, compiler: Any, **options: Any) -> str:
    """Texts are sorted and told apart as SQLite does it, whatever the database's language."""
    return f'{getattr(compiler, f"visit_{kind.__visit_name__}")(kind, **options)} COLLATE "C"'


def _options(url: URL) -> dict[str, Any]:
    if file_of(url) is not None:
        return {}
    from letta_matrix.store.postgres_connection import parameters_for

    # Whoever waited for another is to see what that one has made.
    return {"connect_args": parameters_for(url), "isolation_level": "READ COMMITTED"}


def _run(connection: Connection) -> None:
    context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
    with context.begin_transaction():
        context.run_migrations()


url = make_url(context.config.get_main_option("sqlalchemy.url") or "")
engine = create_engine(url, **_options(url))
with engine.begin() as connection:
    if connection.dialect.name == "postgresql":
        for name in _PATIENT:
            connection.execute(text(f"SET LOCAL {name} = 0"))
        connection.execute(_ONE_AT_A_TIME)
    _run(connection)
engine.dispose()
