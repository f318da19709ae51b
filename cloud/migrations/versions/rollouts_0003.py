"""Releases, gates, rollouts: TUF metadata, what vehicles run and are to run, evidence, stops, verdicts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0003"
down_revision = "0002"


def _time(name: str, *, is_now: bool = False) -> sa.Column[object]:
    if is_now:
        return sa.Column(name, sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now())
    return sa.Column(name, sa.DateTime(timezone=True))


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=False, server_default=sa.text("''"))


def upgrade() -> None:
    """Make the tables."""
    op.add_column("scenes", sa.Column("shadow", JSONB))
    op.create_table(
        "metadata_files",
        sa.Column("repository", sa.Text, primary_key=True),
        sa.Column("role", sa.Text, primary_key=True),
        sa.Column("version", sa.BigInteger, primary_key=True),
        sa.Column("content", sa.LargeBinary, nullable=False),
        _time("published_at", is_now=True),
    )
    op.create_table(
        "releases",
        sa.Column("counter", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("path", sa.Text, nullable=False, unique=True),
        sa.Column("bundle_id", sa.Text, nullable=False),
        sa.Column("hardware", JSONB, nullable=False),
        sa.Column("files", JSONB, nullable=False),
        _text("notes"),
        _time("released_at", is_now=True),
        _time("revoked_at"),
        _text("revoked_why"),
    )
    op.create_table(
        "deltas",
        sa.Column("base_sha256", sa.LargeBinary, primary_key=True),
        sa.Column("want_sha256", sa.LargeBinary, primary_key=True),
        sa.Column("delta_sha256", sa.LargeBinary),
        sa.Column("bytes", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "gates",
        sa.Column("release", sa.BigInteger, sa.ForeignKey("releases.counter"), primary_key=True),
        sa.Column("gate", sa.Text, primary_key=True),
        sa.Column("place", sa.SmallInteger, nullable=False),
        sa.Column("verdict", sa.Text, nullable=False),
        sa.Column("why", sa.Text, nullable=False),
        sa.Column("detail", JSONB, nullable=False),
        _time("ran_at", is_now=True),
        sa.Column("seconds", sa.Double, nullable=False),
    )
    op.create_table(
        "fleet",
        sa.Column("vehicle", sa.Text, sa.ForeignKey("vehicles.name"), primary_key=True),
        _text("hardware"),
        sa.Column("labels", JSONB, nullable=False, server_default=sa.text("'{}'")),
        _text("state"),
        sa.Column("stage", sa.SmallInteger, nullable=False, server_default=sa.text("0")),
        _text("active"),
        _text("previous"),
        _text("staged"),
        sa.Column("counter", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        _text("rollout"),
        _text("why"),
        _text("refused"),
        _text("software"),
        _time("seen_at"),
        sa.Column("manifest", sa.LargeBinary),
        sa.Column("director_version", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    )
    op.create_table(
        "assignments",
        sa.Column("vehicle", sa.Text, sa.ForeignKey("vehicles.name"), primary_key=True),
        sa.Column("rollout", sa.Text, nullable=False),
        sa.Column("release", sa.BigInteger, sa.ForeignKey("releases.counter"), nullable=False),
        sa.Column("mode", sa.SmallInteger, nullable=False),
        sa.Column("wave", sa.SmallInteger, nullable=False),
        _time("assigned_at", is_now=True),
    )
    op.create_table(
        "rollouts",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("release", sa.BigInteger, sa.ForeignKey("releases.counter"), nullable=False),
        sa.Column("policy", JSONB, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("folded", JSONB, nullable=False, server_default=sa.text("'{}'")),
        _time("created_at", is_now=True),
        sa.Column("created_by", sa.Text, nullable=False),
        _time("ended_at"),
        _text("why"),
    )
    op.create_table(
        "rollout_log",
        sa.Column("rollout", sa.Text, sa.ForeignKey("rollouts.id"), primary_key=True),
        sa.Column("number", sa.BigInteger, primary_key=True),
        _time("at", is_now=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("content", JSONB, nullable=False),
    )
    op.create_table(
        "tallies",
        sa.Column("vehicle", sa.Text, sa.ForeignKey("vehicles.name"), primary_key=True),
        sa.Column("bundle_id", sa.Text, primary_key=True),
        sa.Column("is_shadow", sa.Boolean, primary_key=True),
        sa.Column("account", sa.LargeBinary, primary_key=True),
        sa.Column("slice", sa.Text, primary_key=True),
        sa.Column("seconds", sa.Double, nullable=False),
        sa.Column("frames", sa.BigInteger, nullable=False),
        sa.Column("counts", JSONB, nullable=False),
        _time("told_at", is_now=True),
    )
    op.create_table(
        "stops",
        sa.Column("number", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("bundle_id", sa.Text, nullable=False),
        _text("rollout"),
        sa.Column("why", sa.Text, nullable=False),
        _time("at", is_now=True),
        _time("lifted_at"),
    )
    op.create_table(
        "verdicts",
        sa.Column("scene_id", sa.BigInteger, sa.ForeignKey("scenes.id"), primary_key=True),
        sa.Column("vehicle", sa.Text, nullable=False),
        sa.Column("active", sa.Text, nullable=False),
        sa.Column("staged", sa.Text, nullable=False),
        sa.Column("worse", JSONB, nullable=False),
        sa.Column("better", JSONB, nullable=False),
        sa.Column("slices", JSONB, nullable=False),
        _time("judged_at", is_now=True),
    )
    op.create_index("assignments_by_rollout", "assignments", ["rollout"])
    op.create_index("tallies_by_bundle", "tallies", ["bundle_id", "told_at"])
    op.create_index("verdicts_by_bundle", "verdicts", ["staged", "judged_at"])
