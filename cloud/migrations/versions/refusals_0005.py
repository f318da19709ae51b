"""Vehicles say up to which counter they refuse releases of a bundle."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the column."""
    op.add_column("fleet", sa.Column("refused_until", sa.BigInteger, nullable=False, server_default=sa.text("0")))
