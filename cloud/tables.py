"""The catalogue's tables, as SQLAlchemy Core sees them; `cloud/migrations` makes them.

A sequence number, an instant and a size are below 2^63. Floats are double precision and tags are jsonb, so that what
was told comes back bit for bit: a repeated report is compared with what is stored.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

METADATA: Final = MetaData()

VEHICLES: Final = Table(
    "vehicles",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("enrolled_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("revoked_at", DateTime(timezone=True)),
)

CERTIFICATES: Final = Table(
    "certificates",
    METADATA,
    Column("serial", Text, primary_key=True),  # hexadecimal
    Column("vehicle", Text, ForeignKey("vehicles.name"), nullable=False),
    Column("pem", LargeBinary, nullable=False),
    Column("issued_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    Column("revoked_at", DateTime(timezone=True)),
)

ENROLMENT_TOKENS: Final = Table(
    "enrolment_tokens",
    METADATA,
    Column("digest", LargeBinary, primary_key=True),  # SHA-256; the token itself is nowhere
    Column("vehicle", Text, nullable=False),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    Column("used_at", DateTime(timezone=True)),
    # What it was used for: a repeated enrolment with the same key is answered with the same certificate.
    Column("key_digest", LargeBinary),
    Column("serial", Text, ForeignKey("certificates.serial")),
)

OUTBOXES: Final = Table(
    "outboxes",
    METADATA,
    Column("vehicle", Text, ForeignKey("vehicles.name"), primary_key=True),
    Column("outbox", LargeBinary, primary_key=True),
    Column("last_sequence", BigInteger, nullable=False),
)

SCENES: Final = Table(
    "scenes",
    METADATA,
    Column("vehicle", Text, primary_key=True),
    Column("outbox", LargeBinary, primary_key=True),
    Column("sequence", BigInteger, primary_key=True),
    Column("first_ns", BigInteger, nullable=False),
    Column("last_ns", BigInteger, nullable=False),
    Column("peak_ns", BigInteger, nullable=False),
    Column("recorded_at", DateTime(timezone=True)),
    Column("hardness", Double, nullable=False),
    Column("scores", JSONB, nullable=False),
    Column("scene_tags", JSONB, nullable=False),
    Column("sound_events", JSONB, nullable=False),
    Column("embedding", LargeBinary, nullable=False),  # signed bytes, each times embedding_scale
    Column("embedding_scale", Double, nullable=False),
    Column("bundle_id", Text, nullable=False),
    Column("lane_probability", Double, nullable=False),
    Column("latitude_deg", Double),
    Column("longitude_deg", Double),
    Column("media", SmallInteger, nullable=False),  # roadfuse.v1.MediaState: what the vehicle says
    Column("reason", Text, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("sha256", LargeBinary, nullable=False),
    Column("wanted", Boolean, nullable=False, server_default=text("false")),
    Column("told_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("received_at", DateTime(timezone=True)),  # the clip is here; nothing takes that back
    Column("object_key", Text),
    ForeignKeyConstraint(["vehicle", "outbox"], ["outboxes.vehicle", "outboxes.outbox"]),
    Index("scenes_wanted", "vehicle", "outbox", postgresql_where=text("wanted AND received_at IS NULL")),
)
