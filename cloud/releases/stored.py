"""Where TUF metadata lies: the table of published files, read and extended within a transaction.

Files are never changed; a new version is a new row. Whoever publishes holds a lock to the end of the transaction, so
that two publishers follow one another, and a killed one leaves nothing.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from sqlalchemy import Connection, insert, select, text

from cloud.tables import METADATA_FILES

# Whoever publishes holds this advisory lock; the number is ours by choice.
LOCK: Final = 0x7266726C
# A vehicle follows no more roots than this in one session; who is further behind asks again.
MOST_ROOTS: Final = 64


class Stored(NamedTuple):
    """A published file."""

    version: int
    content: bytes


def lock(connection: Connection) -> None:
    """Wait until no other publisher is at work; held to the end of the transaction."""
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK})


def latest(connection: Connection, repository: str, role: str) -> Stored | None:
    """The newest version of a role."""
    files = METADATA_FILES.c
    row = connection.execute(
        select(files.version, files.content)
        .where(files.repository == repository, files.role == role)
        .order_by(files.version.desc())
        .limit(1)
    ).one_or_none()
    return None if row is None else Stored(row.version, bytes(row.content))


def get(connection: Connection, repository: str, role: str, version: int) -> bytes | None:
    """One version of a role."""
    files = METADATA_FILES.c
    content = connection.execute(
        select(files.content).where(files.repository == repository, files.role == role, files.version == version)
    ).scalar_one_or_none()
    return None if content is None else bytes(content)


def roots(connection: Connection, repository: str) -> list[Stored]:
    """All roots, the first one first."""
    files = METADATA_FILES.c
    rows = connection.execute(
        select(files.version, files.content)
        .where(files.repository == repository, files.role == "root")
        .order_by(files.version)
    )
    return [Stored(row.version, bytes(row.content)) for row in rows]


def put(connection: Connection, repository: str, role: str, version: int, content: bytes) -> None:
    """Publish a version that was not there."""
    connection.execute(
        insert(METADATA_FILES).values(repository=repository, role=role, version=version, content=content)
    )
