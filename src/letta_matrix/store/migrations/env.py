"""Alembic's entry: runs the migrations on the database it is pointed at."""

from typing import Any

from alembic import context
from sqlalchemy import Connection, String, Text, create_engine, text
from sqlalchemy.ext.compiler import compiles

from letta_matrix.store.schema import metadata

_ONE_AT_A_TIME = text("SELECT pg_advisory_xact_lock(7234307587616269)")
"""Of several bridges that start together one migrates, and the others wait and find it done."""


@compiles(Text, "postgresql")
@compiles(String, "postgresql")
def _in_the_order_of_bytes(kind: String, compiler: Any, **options: Any) -> str:
    """Texts are sorted and told apart as SQLite does it, whatever the database's language."""
    return f'{getattr(compiler, f"visit_{kind.__visit_name__}")(kind, **options)} COLLATE "C"'


def _run(connection: Connection) -> None:
    context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
    with context.begin_transaction():
        context.run_migrations()


engine = create_engine(context.config.get_main_option("sqlalchemy.url") or "")
with engine.begin() as connection:
    if connection.dialect.name == "postgresql":
        connection.execute(_ONE_AT_A_TIME)
    _run(connection)
engine.dispose()
