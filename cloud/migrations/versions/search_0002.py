"""Search and analysis: scene ids, vectors for pgvector, moments, jobs, analyses, campaigns."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from pgvector.sqlalchemy import HALFVEC
from sqlalchemy.dialects.postgresql import JSONB

revision = "0002"
down_revision = "0001"

# Whoever mirrors scenes asks for what changed in transactions that were open at its last look, or began since.
_TRIGGER = "CREATE TRIGGER {0}_changed BEFORE INSERT OR UPDATE ON {0} FOR EACH ROW EXECUTE FUNCTION note_change()"
_CHANGED = """
CREATE FUNCTION note_change() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN NEW.changed := pg_current_xact_id()::text::bigint; RETURN NEW; END $$
"""
# A signed byte is exact as a half-precision float; the scale stays beside it.
_AS_VECTOR = """
CASE WHEN length(embedding) = 0 THEN NULL ELSE (
    SELECT array_agg(CASE WHEN byte > 127 THEN byte - 256 ELSE byte END ORDER BY place)
    FROM (SELECT place, get_byte(embedding, place) AS byte FROM generate_series(0, length(embedding) - 1) AS place) AS b
)::real[]::halfvec END
"""


def upgrade() -> None:
    """Make the tables; embeddings that were told become vectors, exactly."""
    op.execute("CREATE EXTENSION IF NOT EXISTS vector")
    op.add_column("scenes", sa.Column("id", sa.BigInteger, sa.Identity(always=True), nullable=False))
    op.create_unique_constraint("scenes_id", "scenes", ["id"])
    op.add_column("scenes", sa.Column("changed", sa.BigInteger, nullable=False, server_default=sa.text("0")))
    op.add_column("scenes", sa.Column("vector", HALFVEC))
    op.execute(
        f"CREATE FUNCTION pg_temp.as_vector(embedding bytea) RETURNS halfvec LANGUAGE sql AS $$ SELECT {_AS_VECTOR} $$"
    )
    op.execute("UPDATE scenes SET vector = pg_temp.as_vector(embedding)")
    op.drop_column("scenes", "embedding")
    op.alter_column("scenes", "vector", new_column_name="embedding")
    op.execute(_CHANGED)
    op.execute(_TRIGGER.format("scenes"))
    op.create_index("scenes_by_change", "scenes", ["changed"])
    op.create_index("scenes_by_time", "scenes", [sa.text("recorded_at DESC NULLS LAST"), sa.text("id DESC")])

    op.create_table(
        "analyses",
        sa.Column("scene_id", sa.BigInteger, sa.ForeignKey("scenes.id"), primary_key=True),
        sa.Column("model", sa.Text, primary_key=True),
        sa.Column("space", sa.Text, nullable=False),
        sa.Column("made_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.Column("report", JSONB, nullable=False),
        sa.Column("changed", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    )
    op.execute(_TRIGGER.format("analyses"))
    op.create_index("analyses_by_change", "analyses", ["changed"])
    op.create_table(
        "moments",
        sa.Column("scene_id", sa.BigInteger, primary_key=True),
        sa.Column("model", sa.Text, primary_key=True),
        sa.Column("instant_ns", sa.BigInteger, primary_key=True),
        sa.Column("labels", JSONB, nullable=False),
        sa.ForeignKeyConstraint(["scene_id", "model"], ["analyses.scene_id", "analyses.model"], ondelete="CASCADE"),
    )
    op.create_table(
        "vectors",
        sa.Column("scene_id", sa.BigInteger, primary_key=True),
        sa.Column("model", sa.Text, primary_key=True),
        sa.Column("instant_ns", sa.BigInteger, primary_key=True),
        sa.Column("modality", sa.Text, primary_key=True),
        sa.Column("space", sa.Text, nullable=False),
        sa.Column("vector", HALFVEC, nullable=False),
        sa.Column("scale", sa.Double, nullable=False),
        sa.ForeignKeyConstraint(
            ["scene_id", "model", "instant_ns"],
            ["moments.scene_id", "moments.model", "moments.instant_ns"],
            ondelete="CASCADE",
        ),
    )
    op.create_table(
        "facts",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("value", JSONB, nullable=False),
        sa.Column("set_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
    )
    op.create_table(
        "jobs",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("arguments", JSONB, nullable=False, server_default=sa.text("'{}'")),
        sa.Column("state", sa.Text, nullable=False, server_default=sa.text("'queued'")),
        sa.Column("priority", sa.SmallInteger, nullable=False, server_default=sa.text("0")),
        sa.Column("attempts", sa.SmallInteger, nullable=False, server_default=sa.text("0")),
        sa.Column("put_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.Column("run_after", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.Column("lease", sa.LargeBinary),
        sa.Column("lease_until", sa.DateTime(timezone=True)),
        sa.Column("ended_at", sa.DateTime(timezone=True)),
        sa.Column("stage", sa.Text, nullable=False, server_default=sa.text("''")),
        sa.Column("progress", sa.Double, nullable=False, server_default=sa.text("0")),
        sa.Column("checkpoint", JSONB),
        sa.Column("error", sa.Text, nullable=False, server_default=sa.text("''")),
        sa.Column("result", JSONB),
        sa.UniqueConstraint("kind", "subject", name="jobs_once"),
        sa.CheckConstraint("state IN ('queued', 'running', 'done', 'parked', 'cancelled')", name="jobs_state"),
    )
    op.create_index(
        "jobs_open",
        "jobs",
        [sa.text("priority DESC"), "id"],
        postgresql_where=sa.text("state IN ('queued', 'running')"),
    )
    op.create_table(
        "campaigns",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("query", JSONB, nullable=False),
        sa.Column("probe", sa.LargeBinary, nullable=False),
        sa.Column("budget_bytes", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("stopped_at", sa.DateTime(timezone=True)),
    )
    op.create_table(
        "campaign_scenes",
        sa.Column("campaign", sa.Text, sa.ForeignKey("campaigns.id"), primary_key=True),
        sa.Column("scene_id", sa.BigInteger, sa.ForeignKey("scenes.id"), primary_key=True),
        sa.Column("score", sa.Double, nullable=False),
    )
    op.create_table(
        "asks",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("vehicle", sa.Text, sa.ForeignKey("vehicles.name"), nullable=False),
        sa.Column("first_ns", sa.BigInteger, nullable=False),
        sa.Column("last_ns", sa.BigInteger, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("asked_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("answer", sa.Text),
        sa.Column("answered_at", sa.DateTime(timezone=True)),
    )
    op.create_table(
        "api_keys",
        sa.Column("digest", sa.LargeBinary, primary_key=True),
        sa.Column("name", sa.Text, nullable=False, unique=True),
        sa.Column("may_write", sa.Boolean, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.Column("expires_at", sa.DateTime(timezone=True)),
        sa.Column("revoked_at", sa.DateTime(timezone=True)),
    )
