"""Whose login gave a token."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.add_column(
        "tokens", sa.Column("user_id", sa.String, nullable=False, server_default=sa.text("''"))
    )
    # Those of before: a login's token says whose it is, and follows them from now on.
    op.execute(
        "UPDATE tokens SET user_id = substr(label, 10) "
        "WHERE label LIKE 'login of @%' AND abs(expires_at - created_at - 86400) < 1"
    )
