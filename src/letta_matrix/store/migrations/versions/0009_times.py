"""When turns came, were handed over and were answered."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    for column in ("arrived_at", "given_at", "spoke_at"):
        op.add_column("turns", sa.Column(column, sa.Float))
    op.create_index("turns_by_agent", "turns", ["agent_id", "kind", "seq"])
