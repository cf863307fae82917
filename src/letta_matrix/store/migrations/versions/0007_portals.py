"""Rooms of other networks, and who talks there."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.create_table(
        "portals",
        sa.Column("room_id", sa.String, primary_key=True),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("protocol", sa.String, nullable=False),
        sa.Column("channel", sa.String, nullable=False),
        sa.Column("receiver", sa.String, nullable=False),
        sa.Column("direct", sa.Boolean, nullable=False),
        sa.Column("held", sa.Boolean, nullable=False),
    )
    op.create_table(
        "portal_ghosts",
        sa.Column("user_id", sa.String, primary_key=True),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("identifiers", sa.JSON, nullable=False),
    )
    op.create_table(
        "portal_contacts",
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("contact", sa.String, primary_key=True),
        sa.Column("agent_id", sa.String),
        sa.Column("stopped", sa.Boolean, nullable=False),
        sa.Column("word", sa.String, nullable=False),
        sa.Column("told_at", sa.Float, nullable=False),
    )
