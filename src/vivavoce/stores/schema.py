"""The tables of the store, as one schema for SQLite and PostgreSQL.

A change here needs a new file in `migrations/versions`; a test compares the two. What moves with every committed chunk
of audio stands in `progress`, apart from the wide rows of `sessions`: a database writes whole pages, and a page holds
one or two sessions but a hundred rows of progress.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    text,
)

if TYPE_CHECKING:
    from sqlalchemy import Dialect

_EARLIEST = datetime.min.replace(tzinfo=UTC)
_LATEST = datetime.max.replace(tzinfo=UTC)


class UtcDateTime(TypeDecorator[datetime]):
    """A moment, stored in UTC and given back aware of it, to the microsecond; refuses naive datetimes."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 (SQLAlchemy's signature)
        """Turn a moment into UTC; one that UTC cannot express becomes the nearest that it can."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a moment without a time zone")
        try:
            return value.astimezone(UTC)
        except OverflowError:
            return _EARLIEST if value.year == 1 else _LATEST

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 (SQLAlchemy's signature)
        """Give the zone back to what SQLite keeps without one."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
    }
)

sessions = Table(
    "sessions",
    metadata,
    Column("id", String, primary_key=True),
    Column("owner", String, nullable=False),
    Column("token_hash", String, nullable=False, unique=True),
    Column("status", String, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("completed_at", UtcDateTime),
    Column("error_code", Integer),
    Column("request", JSON, nullable=False),
    Column("custom_metadata", JSON(none_as_null=True)),
    Column("post_session_metadata", JSON, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("leg", String),
    Index("ix_sessions_created_at", "created_at", "id"),
    Index("ix_sessions_owner", "owner", "created_at", "id"),
    Index("ix_sessions_status", "status", "created_at"),
)

progress = Table(
    "progress",
    metadata,
    Column("session_id", String, ForeignKey("sessions.id", ondelete="CASCADE"), primary_key=True),
    Column("audio_bytes", BigInteger, nullable=False),
    Column("audio_start", BigInteger, nullable=False),
    Column("transcription_s", Double, nullable=False),
    Column("ack_ends", JSON, nullable=False),
    Column("delivered_to", BigInteger, nullable=False, server_default="-1"),
)

messages = Table(
    "messages",
    metadata,
    Column("session_id", String, ForeignKey("sessions.id", ondelete="CASCADE"), primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("kind", String, nullable=False),
    Column("key", String, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("sent", Boolean, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("text", Text, nullable=False),
)

finals = Table(
    "finals",
    metadata,
    Column("session_id", String, ForeignKey("sessions.id", ondelete="CASCADE"), primary_key=True),
    Column("id", String, primary_key=True),
    Column("channel", Integer, nullable=False),
    Column("start", Double, nullable=False),
    Column("end", Double, nullable=False),
    Column("confidence", Double, nullable=False),
    Column("language", String, nullable=False),
    Column("speaker", Integer),
    Column("words", JSON, nullable=False),
)

findings = Table(
    "findings",
    metadata,
    Column("session_id", String, ForeignKey("sessions.id", ondelete="CASCADE"), primary_key=True),
    Column("feature", String, primary_key=True),
    Column("utterance_id", String, primary_key=True),
    Column("target", String, primary_key=True),
    Column("found", JSON(none_as_null=True)),
    Column("error", Text),
    Column("spent_s", Double, nullable=False),
)

controls = Table(
    "controls",
    metadata,
    # SQLite counts by itself in columns called INTEGER only, which are 64 bits wide there.
    Column("position", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("session_id", String, ForeignKey("sessions.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("at", BigInteger, nullable=False),
    Column("kind", String, nullable=False),
)

snapshots = Table(
    "snapshots",
    metadata,
    Column("session_id", String, ForeignKey("sessions.id", ondelete="CASCADE"), primary_key=True),
    Column("channel", Integer, primary_key=True, autoincrement=False),
    Column("state", JSON, nullable=False),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", String, primary_key=True),
    Column("name", String, nullable=False),
    Column("key_hash", String, nullable=False, unique=True),
    Column("created_at", UtcDateTime, nullable=False),
    Column("revoked_at", UtcDateTime),
    Column("max_sessions", Integer),
    Column("rate", Double),
)

outbox = Table(
    "outbox",
    metadata,
    Column("position", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("session_id", String, ForeignKey("sessions.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("id", String, nullable=False, unique=True),
    Column("lane", String, nullable=False),
    Column("event", String, nullable=False),
    Column("url", String, nullable=False),
    Column("body", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("state", String, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("next_at", UtcDateTime),
    Column("reason", String),
    # Most rows are delivered for good; this holds the few that are not.
    Index(
        "ix_outbox_waiting",
        "session_id",
        "lane",
        "position",
        sqlite_where=text("state = 'waiting'"),
        postgresql_where=text("state = 'waiting'"),
    ),
)

signing_secrets = Table(
    "signing_secrets",
    metadata,
    Column("secret", String, primary_key=True),
    Column("owner", String, nullable=False, index=True),
    Column("created_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime),
)
