"""What a person has asked is counted at every message."""

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_index("ix_turns_sender", "turns", ["sender"])
