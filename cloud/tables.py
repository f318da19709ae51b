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
    # What a staged bundle said of the hardest frame: {bundle_id, scene_tags, sound_events}.
    Column("shadow", JSONB),
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

# TUF metadata as it was published: of the image repository all roles, of the director its roots (the rest is signed for
# each call).
METADATA_FILES: Final = Table(
    "metadata_files",
    METADATA,
    Column("repository", Text, primary_key=True),  # image, director
    Column("role", Text, primary_key=True),
    Column("version", BigInteger, primary_key=True),
    Column("content", LargeBinary, nullable=False),
    Column("published_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
)

RELEASES: Final = Table(
    "releases",
    METADATA,
    Column("counter", BigInteger, primary_key=True, autoincrement=False),
    Column("name", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("path", Text, nullable=False, unique=True),  # of its target: NAME/COUNTER/manifest.json
    Column("bundle_id", Text, nullable=False),
    Column("hardware", JSONB, nullable=False),  # classes that it is for
    Column("files", JSONB, nullable=False),  # [{name, length, sha256}], the manifest first
    Column("notes", Text, nullable=False, server_default=text("''")),
    Column("released_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("revoked_at", DateTime(timezone=True)),
    Column("revoked_why", Text, nullable=False, server_default=text("''")),
)

DELTAS: Final = Table(
    "deltas",
    METADATA,
    Column("base_sha256", LargeBinary, primary_key=True),
    Column("want_sha256", LargeBinary, primary_key=True),
    Column("delta_sha256", LargeBinary),  # NULL: the whole file is the cheaper way
    Column("bytes", BigInteger, nullable=False),
)

GATES: Final = Table(
    "gates",
    METADATA,
    Column("release", BigInteger, ForeignKey("releases.counter"), primary_key=True),
    Column("gate", Text, primary_key=True),
    Column("place", SmallInteger, nullable=False),  # in the order in which they run
    Column("verdict", Text, nullable=False),  # passed, refused, skipped
    Column("why", Text, nullable=False),
    Column("detail", JSONB, nullable=False),
    Column("ran_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("seconds", Double, nullable=False),
)

# What each vehicle says that it runs, and how far it is.
FLEET: Final = Table(
    "fleet",
    METADATA,
    Column("vehicle", Text, ForeignKey("vehicles.name"), primary_key=True),
    Column("hardware", Text, nullable=False, server_default=text("''")),
    Column("labels", JSONB, nullable=False, server_default=text("'{}'")),  # that people gave it
    Column("state", Text, nullable=False, server_default=text("''")),  # driving, parked, offline, gone
    Column("stage", SmallInteger, nullable=False, server_default=text("0")),  # roadfuse.v1.Stage
    Column("active", Text, nullable=False, server_default=text("''")),  # bundle ids
    Column("previous", Text, nullable=False, server_default=text("''")),
    Column("staged", Text, nullable=False, server_default=text("''")),
    Column("counter", BigInteger, nullable=False, server_default=text("0")),  # of the active one
    Column("rollout", Text, nullable=False, server_default=text("''")),
    Column("why", Text, nullable=False, server_default=text("''")),
    Column("refused", Text, nullable=False, server_default=text("''")),  # the bundle that `why` is about
    Column("refused_until", BigInteger, nullable=False, server_default=text("0")),  # its releases up to this; 0: all
    Column("software", Text, nullable=False, server_default=text("''")),
    Column("seen_at", DateTime(timezone=True)),
    Column("manifest", LargeBinary),  # as it was signed last
    Column("director_version", BigInteger, nullable=False, server_default=text("0")),
)

# What each vehicle is to do; the director signs it when the vehicle calls.
ASSIGNMENTS: Final = Table(
    "assignments",
    METADATA,
    Column("vehicle", Text, ForeignKey("vehicles.name"), primary_key=True),
    Column("rollout", Text, nullable=False),
    Column("release", BigInteger, ForeignKey("releases.counter"), nullable=False),
    Column("mode", SmallInteger, nullable=False),  # roadfuse.v1.Mode
    Column("wave", SmallInteger, nullable=False),
    Column("assigned_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Index("assignments_by_rollout", "rollout"),
)

ROLLOUTS: Final = Table(
    "rollouts",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("release", BigInteger, ForeignKey("releases.counter"), nullable=False),
    Column("policy", JSONB, nullable=False),
    Column("state", Text, nullable=False),  # created, running, paused, stopped, aborted, done
    Column("folded", JSONB, nullable=False, server_default=text("'{}'")),  # what the log amounts to so far
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("created_by", Text, nullable=False),
    Column("ended_at", DateTime(timezone=True)),
    Column("why", Text, nullable=False, server_default=text("''")),
    Column("let_go_at", DateTime(timezone=True)),  # of what vehicles said; the rest of the log stays
)

# All that went into the rules and all that they ordered, in order: replayed, it gives the same orders.
ROLLOUT_LOG: Final = Table(
    "rollout_log",
    METADATA,
    Column("rollout", Text, ForeignKey("rollouts.id"), primary_key=True),
    Column("number", BigInteger, primary_key=True),
    Column("at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("kind", Text, nullable=False),  # observed, commanded, ordered, recorded
    Column("content", JSONB, nullable=False),
)

# Observations of that log that are objects by now; no foreign key, whose check would wait for the engine's lock.
ROLLOUT_SEGMENTS: Final = Table(
    "rollout_segments",
    METADATA,
    Column("rollout", Text, primary_key=True),
    Column("first", BigInteger, primary_key=True),
    Column("last", BigInteger, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("sha256", LargeBinary, nullable=False),  # of the object
    Column("bytes", BigInteger, nullable=False),
    Column("moved_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
)

# How a bundle fares on a vehicle; only grows within an account.
TALLIES: Final = Table(
    "tallies",
    METADATA,
    Column("vehicle", Text, ForeignKey("vehicles.name"), primary_key=True),
    Column("bundle_id", Text, primary_key=True),
    Column("is_shadow", Boolean, primary_key=True),
    Column("account", LargeBinary, primary_key=True),
    Column("slice", Text, primary_key=True),
    Column("seconds", Double, nullable=False),
    Column("frames", BigInteger, nullable=False),
    Column("counts", JSONB, nullable=False),
    Column("told_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Index("tallies_by_bundle", "bundle_id", "told_at"),
)

# Bundles that nobody may run or begin to run.
STOPS: Final = Table(
    "stops",
    METADATA,
    Column("number", BigInteger, Identity(always=True), primary_key=True),
    Column("bundle_id", Text, nullable=False),
    Column("rollout", Text, nullable=False, server_default=text("''")),
    Column("why", Text, nullable=False),
    Column("at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("lifted_at", DateTime(timezone=True)),
)

# Who was right where a staged bundle and the active one differed, by a bigger model's word on the clip.
VERDICTS: Final = Table(
    "verdicts",
    METADATA,
    Column("scene_id", BigInteger, ForeignKey("scenes.id"), primary_key=True),
    Column("vehicle", Text, nullable=False),
    Column("active", Text, nullable=False),
    Column("staged", Text, nullable=False),
    Column("worse", JSONB, nullable=False),  # labels that the staged one alone told wrongly
    Column("better", JSONB, nullable=False),
    Column("slices", JSONB, nullable=False),
    Column("judged_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Index("verdicts_by_bundle", "staged", "judged_at"),
)
