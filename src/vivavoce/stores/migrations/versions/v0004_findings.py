"""What add-ons found in utterances and transcripts."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "findings",
        sa.Column("session_id", sa.String(), nullable=False),
        sa.Column("feature", sa.String(), nullable=False),
        sa.Column("utterance_id", sa.String(), nullable=False),
        sa.Column("target", sa.String(), nullable=False),
        sa.Column("found", sa.JSON(none_as_null=True)),
        sa.Column("error", sa.Text()),
        sa.Column("spent_s", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("session_id", "feature", "utterance_id", "target", name="pk_findings"),
        sa.ForeignKeyConstraint(["session_id"], ["sessions.id"], name="fk_findings_session_id", ondelete="CASCADE"),
    )
