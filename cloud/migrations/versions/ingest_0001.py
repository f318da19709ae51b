"""Ingest: vehicles and their certificates, outboxes, scenes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "vehicles",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("enrolled_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.Column("revoked_at", sa.DateTime(timezone=True)),
    )
    op.create_table(
        "certificates",
        sa.Column("serial", sa.Text, primary_key=True),
        sa.Column("vehicle", sa.Text, sa.ForeignKey("vehicles.name"), nullable=False),
        sa.Column("pem", sa.LargeBinary, nullable=False),
        sa.Column("issued_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("revoked_at", sa.DateTime(timezone=True)),
    )
    op.create_table(
        "enrolment_tokens",
        sa.Column("digest", sa.LargeBinary, primary_key=True),
        sa.Column("vehicle", sa.Text, nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True)),
        sa.Column("key_digest", sa.LargeBinary),
        sa.Column("serial", sa.Text, sa.ForeignKey("certificates.serial")),
    )
    op.create_table(
        "outboxes",
        sa.Column("vehicle", sa.Text, sa.ForeignKey("vehicles.name"), primary_key=True),
        sa.Column("outbox", sa.LargeBinary, primary_key=True),
        sa.Column("last_sequence", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "scenes",
        sa.Column("vehicle", sa.Text, primary_key=True),
        sa.Column("outbox", sa.LargeBinary, primary_key=True),
        sa.Column("sequence", sa.BigInteger, primary_key=True),
        sa.Column("first_ns", sa.BigInteger, nullable=False),
        sa.Column("last_ns", sa.BigInteger, nullable=False),
        sa.Column("peak_ns", sa.BigInteger, nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True)),
        sa.Column("hardness", sa.Double, nullable=False),
        sa.Column("scores", JSONB, nullable=False),
        sa.Column("scene_tags", JSONB, nullable=False),
        sa.Column("sound_events", JSONB, nullable=False),
        sa.Column("embedding", sa.LargeBinary, nullable=False),
        sa.Column("embedding_scale", sa.Double, nullable=False),
        sa.Column("bundle_id", sa.Text, nullable=False),
        sa.Column("lane_probability", sa.Double, nullable=False),
        sa.Column("latitude_deg", sa.Double),
        sa.Column("longitude_deg", sa.Double),
        sa.Column("media", sa.SmallInteger, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("sha256", sa.LargeBinary, nullable=False),
        sa.Column("wanted", sa.Boolean, nullable=False, server_default=sa.text("false")),
        sa.Column("told_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.Column("received_at", sa.DateTime(timezone=True)),
        sa.Column("object_key", sa.Text),
        sa.ForeignKeyConstraint(["vehicle", "outbox"], ["outboxes.vehicle", "outboxes.outbox"]),
    )
    op.create_index(
        "scenes_wanted",
        "scenes",
        ["vehicle", "outbox"],
        postgresql_where=sa.text("wanted AND received_at IS NULL"),
    )
