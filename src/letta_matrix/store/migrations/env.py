"""Alembic's entry: runs the migrations on the database it is pointed at."""

from alembic import context
from sqlalchemy import Connection, create_engine

from letta_matrix.store.schema import metadata


def _run(connection: Connection) -> None:
    context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
    with context.begin_transaction():
        context.run_migrations()


engine = create_engine(context.config.get_main_option("sqlalchemy.url") or "")
with engine.begin() as connection:
    _run(connection)
engine.dispose()
