"""What a person has asked is counted at every message."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_index("ix_turns_sender", "turns", ["sender"])
    unfinished = sa.text("status != 'done'")
    op.create_index(
        "ix_turns_waiting",
        "turns",
        ["sender"],
        sqlite_where=unfinished,
        postgresql_where=unfinished,
    )
