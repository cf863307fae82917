"""Questions that were corrected, asked together with others, or asked anew."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.add_column("turns", sa.Column("amended_at", sa.Float))
    op.add_column("turns", sa.Column("joined_to", sa.String))
    op.add_column("turns", sa.Column("revises", sa.String))
    op.create_index("ix_turns_event_id", "turns", ["event_id"])
    op.create_index("turns_by_place", "turns", ["room_id", "thread_id"])
    for column in ("joined_to", "revises"):
        few = sa.text(f"{column} IS NOT NULL")
        op.create_index(
            f"turns_{column}", "turns", [column], sqlite_where=few, postgresql_where=few
        )
