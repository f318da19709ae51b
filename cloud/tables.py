"""The catalogue's tables, as SQLAlchemy Core sees them; `cloud/migrations` makes them.

A sequence number, an instant and a size are below 2^63. Floats are double precision and tags are jsonb, so that what
was told comes back bit for bit: a repeated report is compared with what is stored. An embedding is signed bytes, kept
as pgvector's half-precision floats, which hold them exactly, beside a scale that each is multiplied with: the database
itself can rank them. `changed` is the transaction that last touched a row; who mirrors the table asks for what changed
in transactions that were open at its last look, or began since.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from pgvector.sqlalchemy import HALFVEC
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

METADATA: Final = MetaData()


class SignedBytes(TypeDecorator[bytes]):
    """Signed bytes in Python, a vector of halves in the database; no bytes are NULL there."""

    impl = HALFVEC
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> list[int] | None:
        """Bytes as numbers."""
        return np.frombuffer(value, np.int8).tolist() if value else None

    def process_result_value(self, value: Any, dialect: Any) -> bytes:
        """Numbers as bytes."""
        return b"" if value is None else np.asarray(value, np.float32).astype(np.int8).tobytes()


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
    Column("embedding", SignedBytes),  # each times embedding_scale
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
    Column("id", BigInteger, Identity(always=True), nullable=False, unique=True),
    Column("changed", BigInteger, nullable=False, server_default=text("0")),  # by trigger
    ForeignKeyConstraint(["vehicle", "outbox"], ["outboxes.vehicle", "outboxes.outbox"]),
    Index("scenes_wanted", "vehicle", "outbox", postgresql_where=text("wanted AND received_at IS NULL")),
    Index("scenes_by_change", "changed"),
    Index("scenes_by_time", text("recorded_at DESC NULLS LAST"), text("id DESC")),
)

# What a model of the cloud made of a scene's clip: the report, and moments with their labels and vectors.
ANALYSES: Final = Table(
    "analyses",
    METADATA,
    Column("scene_id", BigInteger, ForeignKey("scenes.id"), primary_key=True),
    Column("model", Text, primary_key=True),
    Column("space", Text, nullable=False),  # the bundle whose embeddings its vectors compare with
    Column("made_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("report", JSONB, nullable=False),
    Column("changed", BigInteger, nullable=False, server_default=text("0")),  # by trigger
    Index("analyses_by_change", "changed"),
)

MOMENTS: Final = Table(
    "moments",
    METADATA,
    Column("scene_id", BigInteger, primary_key=True),
    Column("model", Text, primary_key=True),
    Column("instant_ns", BigInteger, primary_key=True),
    Column("labels", JSONB, nullable=False),  # label -> calibrated probability
    ForeignKeyConstraint(["scene_id", "model"], ["analyses.scene_id", "analyses.model"], ondelete="CASCADE"),
)

VECTORS: Final = Table(
    "vectors",
    METADATA,
    Column("scene_id", BigInteger, primary_key=True),
    Column("model", Text, primary_key=True),
    Column("instant_ns", BigInteger, primary_key=True),
    Column("modality", Text, primary_key=True),  # scene (all of them fused), image, audio, motion, lidar, video
    Column("space", Text, nullable=False),
    Column("vector", SignedBytes, nullable=False),
    Column("scale", Double, nullable=False),
    ForeignKeyConstraint(
        ["scene_id", "model", "instant_ns"],
        ["moments.scene_id", "moments.model", "moments.instant_ns"],
        ondelete="CASCADE",
    ),
)

# What holds for the whole cloud, such as the space that is searched.
FACTS: Final = Table(
    "facts",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("value", JSONB, nullable=False),
    Column("set_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
)

JOBS: Final = Table(
    "jobs",
    METADATA,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("kind", Text, nullable=False),
    Column("subject", Text, nullable=False),  # of one kind each subject is there once
    Column("arguments", JSONB, nullable=False, server_default=text("'{}'")),
    Column("state", Text, nullable=False, server_default=text("'queued'")),  # running, done, parked, cancelled
    Column("priority", SmallInteger, nullable=False, server_default=text("0")),
    Column("attempts", SmallInteger, nullable=False, server_default=text("0")),
    Column("put_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("run_after", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("lease", LargeBinary),  # of the worker that runs it; another value: another took it over
    Column("lease_until", DateTime(timezone=True)),
    Column("ended_at", DateTime(timezone=True)),
    Column("stage", Text, nullable=False, server_default=text("''")),
    Column("progress", Double, nullable=False, server_default=text("0")),  # 0..1
    Column("checkpoint", JSONB),  # from where it goes on
    Column("error", Text, nullable=False, server_default=text("''")),
    Column("result", JSONB),
    UniqueConstraint("kind", "subject", name="jobs_once"),
    Index("jobs_open", text("priority DESC"), "id", postgresql_where=text("state IN ('queued', 'running')")),
)

CAMPAIGNS: Final = Table(
    "campaigns",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("query", JSONB, nullable=False),
    Column("probe", LargeBinary, nullable=False),  # as vehicles get it, signed
    Column("budget_bytes", BigInteger, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    Column("stopped_at", DateTime(timezone=True)),
)

CAMPAIGN_SCENES: Final = Table(
    "campaign_scenes",
    METADATA,
    Column("campaign", Text, ForeignKey("campaigns.id"), primary_key=True),
    Column("scene_id", BigInteger, ForeignKey("scenes.id"), primary_key=True),
    Column("score", Double, nullable=False),
)

# Stretches of time that the cloud asks a vehicle for, while its ring still holds them.
ASKS: Final = Table(
    "asks",
    METADATA,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("vehicle", Text, ForeignKey("vehicles.name"), nullable=False),
    Column("first_ns", BigInteger, nullable=False),
    Column("last_ns", BigInteger, nullable=False),
    Column("reason", Text, nullable=False),
    Column("asked_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    Column("answer", Text),  # kept, gone
    Column("answered_at", DateTime(timezone=True)),
)

API_KEYS: Final = Table(
    "api_keys",
    METADATA,
    Column("digest", LargeBinary, primary_key=True),  # SHA-256; the key itself is nowhere
    Column("name", Text, nullable=False, unique=True),
    Column("may_write", Boolean, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("expires_at", DateTime(timezone=True)),
    Column("revoked_at", DateTime(timezone=True)),
)
