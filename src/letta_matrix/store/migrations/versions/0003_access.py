"""Tokens, and the log of what was done with tools."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_Sequence = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "tokens",
        sa.Column("token_id", sa.String, primary_key=True),
        sa.Column("digest", sa.String, nullable=False),
        sa.Column("agent_id", sa.String, nullable=False),
        sa.Column("scopes", sa.JSON, nullable=False),
        sa.Column("rooms", sa.JSON, nullable=False),
        sa.Column("label", sa.String, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("expires_at", sa.Float),
        sa.Column("revoked_at", sa.Float),
    )
    op.create_table(
        "audit",
        sa.Column("seq", _Sequence, primary_key=True, autoincrement=True),
        sa.Column("at", sa.Float, nullable=False, index=True),
        sa.Column("principal", sa.String, nullable=False),
        sa.Column("user_id", sa.String, nullable=False),
        sa.Column("door", sa.String, nullable=False),
        sa.Column("tool", sa.String, nullable=False),
        sa.Column("transaction_id", sa.String),
        sa.Column("fingerprint", sa.String, nullable=False),
        sa.Column("room_id", sa.String),
        sa.Column("event_id", sa.String),
        sa.Column("outcome", sa.String),
        sa.Column("result", sa.JSON),
    )
    # Calls without a transaction_id have NULL there, which is like no other.
    op.create_index("audit_once", "audit", ["principal", "transaction_id"], unique=True)
