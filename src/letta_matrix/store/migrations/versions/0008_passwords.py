"""Passwords of agents' accounts."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.create_table(
        "passwords",
        sa.Column("agent_id", sa.String, primary_key=True),
        sa.Column("password", sa.String, nullable=False),
    )
