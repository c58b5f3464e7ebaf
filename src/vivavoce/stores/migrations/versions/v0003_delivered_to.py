"""Up to which message a session's client has shown to have everything."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the column; of sessions under way, what was said before their last acknowledgment counts as delivered."""
    op.add_column("progress", sa.Column("delivered_to", sa.BigInteger(), nullable=False, server_default="-1"))
    op.execute(
        """
        UPDATE progress SET delivered_to = COALESCE(
            (
                SELECT MAX(messages.seq) FROM messages
                WHERE messages.session_id = progress.session_id AND messages.at < progress.audio_bytes
            ),
            -1
        )
        WHERE session_id IN (SELECT id FROM sessions WHERE status = 'processing')
        """
    )
