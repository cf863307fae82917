"""Which replicas there are, and which of them acts."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.create_table(
        "replicas",
        sa.Column("replica_id", sa.String, primary_key=True),
        sa.Column("host", sa.String, nullable=False),
        sa.Column("ports", sa.JSON, nullable=False),
        sa.Column("version", sa.String, nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("seen_at", sa.Float, nullable=False),
    )
    op.create_table(
        "leases",
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("holder", sa.String, nullable=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("until", sa.Float, nullable=False),
        sa.UniqueConstraint("name", "epoch", name="leases_by_epoch"),
    )
