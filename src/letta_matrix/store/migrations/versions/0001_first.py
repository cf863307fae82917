"""The first schema: inbox, agents, conversations, turns, outbox."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_Sequence = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "meta",
        sa.Column("key", sa.String, primary_key=True),
        sa.Column("value", sa.JSON, nullable=False),
    )
    op.create_table(
        "transactions",
        sa.Column("seq", _Sequence, primary_key=True, autoincrement=True),
        sa.Column("txn_id", sa.String, nullable=False),
        sa.Column("received_at", sa.Float, nullable=False),
    )
    op.create_table(
        "inbox",
        sa.Column("seq", _Sequence, primary_key=True, autoincrement=True),
        sa.Column("event_id", sa.String, nullable=False, unique=True),
        sa.Column("room_id", sa.String, nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("received_at", sa.Float, nullable=False),
        sa.Column("event", sa.JSON, nullable=False),
        sqlite_autoincrement=True,
    )
    parked = sa.text("state = 'parked'")
    op.create_index(
        "inbox_parked", "inbox", ["room_id"], sqlite_where=parked, postgresql_where=parked
    )
    op.create_table(
        "agents",
        sa.Column("agent_id", sa.String, primary_key=True),
        sa.Column("runtime", sa.String, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("description", sa.Text, nullable=False, server_default=""),
        sa.Column("user_id", sa.String, nullable=False, unique=True),
        sa.Column("room_id", sa.String, unique=True),
        sa.Column("status", sa.String, nullable=False),
        sa.Column("applied", sa.JSON, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
    )
    op.create_table(
        "conversations",
        sa.Column("agent_id", sa.String, primary_key=True),
        sa.Column("room_id", sa.String, primary_key=True),
        sa.Column("conversation_id", sa.String, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
    )
    op.create_table(
        "turns",
        sa.Column("seq", _Sequence, primary_key=True, autoincrement=True),
        sa.Column("turn_id", sa.String, nullable=False, unique=True),
        sa.Column("agent_id", sa.String, sa.ForeignKey("agents.agent_id"), nullable=False),
        sa.Column("room_id", sa.String, nullable=False),
        sa.Column("event_id", sa.String, nullable=False),
        sa.Column("sender", sa.String, nullable=False),
        sa.Column("sent_at", sa.Float, nullable=False),
        sa.Column("prompt", sa.Text),
        sa.Column("status", sa.String, nullable=False),
        sa.Column("outcome", sa.String),
        sa.Column("conversation_id", sa.String),
        sa.Column("runtime_state", sa.JSON),
        sa.Column("asked", sa.Integer, nullable=False, server_default="0"),
        sa.Column("finished_at", sa.Float),
        sqlite_autoincrement=True,
    )
    unfinished = sa.text("status != 'done'")
    op.create_index(
        "turns_open", "turns", ["seq"], sqlite_where=unfinished, postgresql_where=unfinished
    )
    op.create_table(
        "outbox",
        sa.Column("txn_id", sa.String, primary_key=True),
        sa.Column("turn_id", sa.String, sa.ForeignKey("turns.turn_id"), nullable=False, index=True),
        sa.Column("seq", sa.Integer, nullable=False),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("part", sa.Integer, nullable=False),
        sa.Column("room_id", sa.String, nullable=False),
        sa.Column("sender", sa.String, nullable=False),
        sa.Column("content", sa.JSON, nullable=False),
        sa.Column("event_id", sa.String, index=True),
        sa.Column("failure", sa.String),
    )
