"""Keys with which people and programs ask the cloud: made once and shown once, kept as a digest alone.

A key is `rf_` and 43 signs; it is sent as `authorization: Bearer KEY`. Reading is what every key may; starting
campaigns, asking for clips and the like wants one that may write.
"""

from __future__ import annotations

import argparse
import base64
import datetime
import hashlib
import hmac
import json
import re
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Final

import grpc
from sqlalchemy import Connection, Engine, func, insert, select, update
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from cloud.errors import CloudError, Refused
from cloud.tables import API_KEYS

PREFIX: Final = "rf_"
# The database is asked about a key at most once in this time: a revoked one works so much longer.
TRUST_S: Final = 1.0
# While the database is away, keys that it knew are taken for good for so long, and it is asked less often.
AWAY_S: Final = 600.0
AGAIN_S: Final = 5.0
MAX_KNOWN: Final = 10_000
MAX_CHARACTERS: Final = 128
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._@-]{0,63}")
NO_KEY: Final = "expected an API key (authorization: Bearer KEY), one that is known here and has not expired"


@dataclass(frozen=True, slots=True)
class Holder:
    """Whose key it is."""

    name: str
    may_write: bool


def create(
    connection: Connection, name: str, *, may_write: bool = False, validity: datetime.timedelta | None = None
) -> str:
    """A new key; this is the only time that it is seen.

    Raises:
        CloudError: the name is taken or none.
    """
    if not _NAME.fullmatch(name):
        raise CloudError(f"expected a name of 1 to 64 letters, digits, blanks and .-_@, got {name[:80]!r}")
    key = PREFIX + secrets.token_urlsafe(32)
    expires_at = None if validity is None else func.now() + validity
    try:
        with connection.begin_nested():
            connection.execute(
                insert(API_KEYS).values(digest=_digest(key), name=name, may_write=may_write, expires_at=expires_at)
            )
    except IntegrityError:
        raise CloudError(f"expected a name that no key has, got {name!r}; revoked ones keep theirs") from None
    return key


def revoke(connection: Connection, name: str) -> None:
    """Let a key be used no more.

    Raises:
        CloudError: there is none of this name.
    """
    changed = connection.execute(
        update(API_KEYS)
        .where(API_KEYS.c.name == name)
        .values(revoked_at=func.coalesce(API_KEYS.c.revoked_at, func.now()))
    )
    if not changed.rowcount:
        raise CloudError(f"expected the name of a key, got {name!r}")


def listed(connection: Connection) -> list[dict[str, Any]]:
    """Every key by name, without what it is."""
    columns = [column for column in API_KEYS.c if column is not API_KEYS.c.digest]
    return [dict(row) for row in connection.execute(select(*columns).order_by(API_KEYS.c.name)).mappings()]


class Keys:
    """Tells whose key it is; remembers for a moment.

    Args:
        engine: of the database.
        inner: the key of the cloud's own parts; "" where there is none.
    """

    def __init__(self, engine: Engine, inner: str = "") -> None:
        self._single = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._lock = threading.Lock()
        self._known: dict[bytes, tuple[float, float, Holder]] = {}  # trusted until, last asked
        self._inner = {_digest(inner): Holder("cloud", may_write=True)} if inner else {}

    def remembered(self, key: str) -> Holder | None:
        """The holder, where the database was asked a moment ago; None where it must be asked."""
        digest = _digest(key)
        until, _, holder = self._known.get(digest, (0.0, 0.0, None))
        return self._inner.get(digest) or (holder if time.monotonic() < until else None)

    def holder(self, key: str) -> Holder:
        """The holder; waits for the database.

        Raises:
            Refused: UNAUTHENTICATED.
            SQLAlchemyError: the database is away, and knew nothing of this key of late.
        """
        if not 0 < len(key) <= MAX_CHARACTERS:
            raise Refused(grpc.StatusCode.UNAUTHENTICATED, NO_KEY)
        digest = _digest(key)
        if digest in self._inner:
            return self._inner[digest]
        try:
            holder = self._asked(digest)
        except SQLAlchemyError:
            _, asked, known = self._known.get(digest, (0.0, 0.0, None))
            if known is None or time.monotonic() > asked + AWAY_S:
                raise
            self._known[digest] = (time.monotonic() + AGAIN_S, asked, known)
            return known
        now = time.monotonic()
        with self._lock:
            if holder is None:
                self._known.pop(digest, None)
                raise Refused(grpc.StatusCode.UNAUTHENTICATED, NO_KEY)
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            self._known[digest] = (now + TRUST_S, now, holder)
        return holder

    def _asked(self, digest: bytes) -> Holder | None:
        with self._single.connect() as connection:
            row = connection.execute(
                select(API_KEYS.c.name, API_KEYS.c.may_write).where(
                    API_KEYS.c.digest == digest,
                    API_KEYS.c.revoked_at.is_(None),
                    func.coalesce(API_KEYS.c.expires_at > func.now(), True),
                )
            ).one_or_none()
        return None if row is None else Holder(row.name, row.may_write)


def inner_key(server_key: bytes) -> str:
    """The key of the cloud's own parts among each other: who can read the server's private key can make it.

    It is another as soon as that key is, so a renewed certificate keeps it (cloud.certificates.issue_server).

    Args:
        server_key: of the server's certificate, PEM.
    """
    digest = hmac.digest(server_key, b"roadfuse: parts of one cloud", "sha256")
    return PREFIX + base64.urlsafe_b64encode(digest).decode().rstrip("=")


def bearer(metadata: Sequence[tuple[str, str | bytes]] | None) -> str:
    """The key in a call's metadata; "" without one."""
    for name, value in metadata or ():
        if name == "authorization" and isinstance(value, str) and value[:7].lower() == "bearer ":
            return value[7:].strip()
    return ""


def add_commands(
    commands: Any,
    parents: Sequence[argparse.ArgumentParser],
    opened: Callable[[argparse.Namespace], AbstractContextManager[Engine]],
) -> None:
    """`key create|list|revoke` below a command with --data and --database.

    Args:
        commands: the sub-parsers that it joins.
        parents: with the options of where the database is.
        opened: the database of such options.
    """
    keys = commands.add_parser("key", help="keys with which the cloud is searched").add_subparsers(
        required=True, metavar="create|list|revoke"
    )
    make = keys.add_parser("create", parents=parents, help="make a key and print it, once")
    make.add_argument("name", metavar="NAME")
    make.add_argument("--may-write", action="store_true", help="it may also start campaigns and ask for clips")
    make.add_argument("--days", type=float, help="how long it may be used; for ever by default")
    show = keys.add_parser("list", parents=parents, help="names of keys, and until when they may be used")
    show.add_argument("--json", action="store_true")
    end = keys.add_parser("revoke", parents=parents, help="let a key be used no more")
    end.add_argument("name", metavar="NAME")

    def created(args: argparse.Namespace) -> int:
        if args.days is not None and not 0 < args.days <= 36_500:
            raise CloudError(f"expected --days from 0 to 36500, got {args.days}")
        validity = None if args.days is None else datetime.timedelta(days=args.days)
        with opened(args) as engine, engine.begin() as connection:
            print(create(connection, args.name, may_write=args.may_write, validity=validity))
        return 0

    def shown(args: argparse.Namespace) -> int:
        with opened(args) as engine, engine.begin() as connection:
            rows = listed(connection)
        if args.json:
            print(json.dumps(rows, indent=2, default=lambda value: value.isoformat()))
            return 0
        for row in rows:
            end = f"revoked {row['revoked_at']:%Y-%m-%d %H:%M}" if row["revoked_at"] else (
                f"until {row['expires_at']:%Y-%m-%d %H:%M}" if row["expires_at"] else "for ever"
            )  # fmt: skip
            print(f"{row['name']}: {'reads and writes' if row['may_write'] else 'reads'}, {end}")
        return 0

    def revoked(args: argparse.Namespace) -> int:
        with opened(args) as engine, engine.begin() as connection:
            revoke(connection, args.name)
        print(f"{args.name}: revoked")
        return 0

    make.set_defaults(run=created)
    show.set_defaults(run=shown)
    end.set_defaults(run=revoked)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
