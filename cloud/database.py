"""The catalogue's PostgreSQL: an embedded one in a folder or any by URL, migrated to this version's tables.

Work is done by a synchronous engine: commands call it directly, the server from its threads.
"""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Engine, create_engine, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError

from cloud.errors import DatabaseError
from cloud.postgres import Postgres

# Connections: one a thread of the server. On two cores 4 wait for the disk too often, 16 get in each other's way.
CONNECTIONS: Final = 8
# Whoever migrates holds this advisory lock; the number is ours by choice.
MIGRATION_LOCK: Final = 0x726F61646675
MIGRATIONS: Final = Path(__file__).parent / "migrations"


@contextlib.contextmanager
def opened(data: Path, url: str | None, *, share: bool = False) -> Iterator[Engine]:
    """A migrated database, closed at the end of the block.

    Args:
        data: the cloud's folder; the embedded PostgreSQL lives in `postgres/` within, made if need be.
        url: of another PostgreSQL (postgresql://...), used instead.
        share: use an embedded one that another process runs already.

    Raises:
        DatabaseError: `data` is no cloud's folder; the database does not start, can't be reached or is not what the
            migrations expect.
    """
    check_begun(data, url)
    with contextlib.ExitStack() as stack:
        if url is None:
            url = stack.enter_context(Postgres(data / "postgres", share=share)).url
        engine = connect(url)
        stack.callback(engine.dispose)
        migrate(engine)
        yield engine


def check_begun(data: Path, url: str | None) -> None:
    """Leave a folder alone in which no cloud was begun (by `roadfuse cloud ca init`).

    Raises:
        DatabaseError: it is none.
    """
    if not data.is_dir():
        raise DatabaseError(f"expected a cloud's data folder, got {data}, which is none")
    if url is None and not (data / "ca").is_dir() and not (data / "postgres" / "data").is_dir():
        got = "with neither ca/ nor postgres/ in it" if any(data.iterdir()) else "which is empty"
        raise DatabaseError(f"expected a cloud's data folder, got {data}, {got} (roadfuse cloud ca init begins one)")


def connect(url: str) -> Engine:
    """An engine for `url`; nothing is connected yet."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):  # the latter of a port that is no number
        raise DatabaseError("expected a URL postgresql://user@host/name, got one that does not parse") from None
    if parsed.get_backend_name() not in ("postgresql", "postgres"):
        raise DatabaseError(f"expected a URL postgresql://..., got {parsed.drivername}://...")
    # What is acknowledged must be on disk, whatever the database's default says. Times are told in UTC, as they are
    # asked for: east of it the last hours of the year 9999 would be beyond what Python's datetime holds.
    session = "-c synchronous_commit=on -c statement_timeout=30s -c timezone=UTC"
    options = {"options": session, "connect_timeout": 10}
    return create_engine(
        parsed.set(drivername="postgresql+psycopg"),
        connect_args=options,
        # All numbers in our jsonb are floats; PostgreSQL writes large ones without a point, which would be integers.
        json_deserializer=functools.partial(json.loads, parse_int=float),
        pool_size=CONNECTIONS,
        max_overflow=0,
        pool_use_lifo=True,
    )


def migrate(engine: Engine) -> None:
    """Bring the tables to this version; done already, or by another server at this moment, it changes nothing.

    Raises:
        DatabaseError: the database can't be reached, or was migrated by a newer version.
    """
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    try:
        with engine.begin() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except OperationalError as error:
        raise DatabaseError(f"the database can't be reached: {first_line(error)}") from None
    except DBAPIError as error:
        raise DatabaseError(f"the database can't be migrated: {first_line(error)}") from None
    except CommandError as error:
        raise DatabaseError(f"the database is of another version of roadfuse: {error}") from None


def reach(engine: Engine) -> None:
    """Ask the database for nothing.

    Raises:
        SQLAlchemyError: it does not answer.
    """
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))


def first_line(error: DBAPIError) -> str:
    """What the database said, without the statement."""
    return (str(error.orig).strip() or type(error.orig).__name__).splitlines()[0]
