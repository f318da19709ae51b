"""Run by alembic, inside the transaction that `cloud.database.migrate` opened."""

from __future__ import annotations

from alembic import context

from cloud.tables import METADATA

context.configure(connection=context.config.attributes["connection"], target_metadata=METADATA)
context.run_migrations()
