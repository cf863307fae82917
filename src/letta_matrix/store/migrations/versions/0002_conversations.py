"""Threads, commands, approvals, rooms that agents were invited to, and what they say unasked."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_Sequence = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_NAMES = {"fk": "fk_%(table_name)s_%(column_0_name)s"}


def upgrade() -> None:
    _extend_turns()
    _rebuild_conversations()
    op.create_table(
        "approvals",
        sa.Column("key", sa.String, primary_key=True),
        sa.Column("turn_id", sa.String, sa.ForeignKey("turns.turn_id"), nullable=False, index=True),
        sa.Column("approval_id", sa.String, nullable=False),
        sa.Column("agent_id", sa.String, nullable=False),
        sa.Column("room_id", sa.String, nullable=False),
        sa.Column("thread_id", sa.String, nullable=False),
        sa.Column("requester", sa.String, nullable=False),
        sa.Column("tool", sa.String, nullable=False),
        sa.Column("arguments", sa.JSON, nullable=False),
        sa.Column("always", sa.Boolean, nullable=False),
        sa.Column("prompt_txn", sa.String, nullable=False),
        sa.Column("status", sa.String, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("decided_by", sa.String, nullable=False),
        sa.Column("asked_at", sa.Float, nullable=False),
        sa.Column("expires_at", sa.Float, nullable=False),
    )
    op.create_table(
        "room_settings",
        sa.Column("agent_id", sa.String, primary_key=True),
        sa.Column("room_id", sa.String, primary_key=True),
        sa.Column("paused", sa.Boolean, nullable=False),
        sa.Column("tool_activity", sa.Boolean),
    )
    op.create_table(
        "memberships",
        sa.Column("room_id", sa.String, primary_key=True),
        sa.Column("user_id", sa.String, primary_key=True),
        sa.Column("direct", sa.Boolean, nullable=False),
        sa.Column("joined_at", sa.Float, nullable=False),
    )
    op.create_table(
        "speech",
        sa.Column("agent_id", sa.String, primary_key=True),
        sa.Column("last_run", sa.String, nullable=False),
        sa.Column("cursor", sa.Text, nullable=False),
    )


def _extend_turns() -> None:
    op.drop_index("turns_open", "turns")
    with op.batch_alter_table(
        "turns", naming_convention=_NAMES, table_kwargs={"sqlite_autoincrement": True}
    ) as turns:
        # A command for the bot is for no agent.
        turns.drop_constraint(
            "turns_agent_id_fkey" if _on_postgres() else "fk_turns_agent_id", type_="foreignkey"
        )
        turns.add_column(sa.Column("kind", sa.String, nullable=False, server_default="message"))
        turns.add_column(sa.Column("thread_id", sa.String, nullable=False, server_default=""))
        turns.add_column(sa.Column("reply_to", sa.String))
        turns.add_column(sa.Column("attachment", sa.JSON))
        turns.add_column(sa.Column("hops", sa.Integer, nullable=False, server_default="0"))
    unfinished = sa.text("status != 'done'")
    op.create_index(
        "turns_open", "turns", ["seq"], sqlite_where=unfinished, postgresql_where=unfinished
    )


def _rebuild_conversations() -> None:
    op.rename_table("conversations", "conversations_0001")
    if _on_postgres():
        # The index keeps its name, which the new table's is to have.
        op.execute("ALTER INDEX conversations_pkey RENAME TO conversations_0001_pkey")
    op.create_table(
        "conversations",
        sa.Column("seq", _Sequence, primary_key=True, autoincrement=True),
        sa.Column("agent_id", sa.String, nullable=False),
        sa.Column("room_id", sa.String, nullable=False),
        sa.Column("thread_id", sa.String, nullable=False),
        sa.Column("conversation_id", sa.String, nullable=False),
        sa.Column("title", sa.String, nullable=False),
        sa.Column("current", sa.Boolean, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("used_at", sa.Float, nullable=False),
    )
    op.execute(
        "INSERT INTO conversations (agent_id, room_id, thread_id, conversation_id, title, "
        "current, created_at, used_at) SELECT agent_id, room_id, '', conversation_id, '', "
        "TRUE, created_at, created_at FROM conversations_0001"
    )
    op.drop_table("conversations_0001")
    current = sa.text("current")
    op.create_index(
        "conversations_current",
        "conversations",
        ["agent_id", "room_id", "thread_id"],
        unique=True,
        sqlite_where=current,
        postgresql_where=current,
    )
    op.create_index("conversations_by_id", "conversations", ["conversation_id"])


def _on_postgres() -> bool:
    return op.get_bind().dialect.name == "postgresql"
