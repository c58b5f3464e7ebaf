"""Which leg of a telephone call a session is for."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the column; earlier sessions are for none."""
    op.add_column("sessions", sa.Column("leg", sa.String()))
