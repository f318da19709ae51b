"""Who looks at the pages: an API key opens a session, a session carries a CSRF token, wrong keys are few a minute.

A session is a signed cookie and no row: digest of the key, when it ends, and a number drawn for it. It lives as long as
its key does. The CSRF token is a signature over that number; a page that another site made can't know it.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sqlalchemy import ColumnElement, Engine, func, select

from cloud.errors import CloudError
from cloud.tables import API_KEYS

SESSION_S: Final = 12 * 3600
SECRET_BYTES: Final = 32
# A key that was asked for a moment ago is not asked for again: a page is fifty requests.
TRUST_S: Final = 1.0
_REMEMBERED: Final = 1_024
# Wrong keys a minute: of one address, and of all together. A key has 256 bits; this is to keep guessing quiet.
TRIES: Final = 10
TRIES_OF_ALL: Final = 200
_WINDOW_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Visitor:
    """Somebody with a key.

    Attributes:
        key: its name.
        nonce: of the session.
    """

    key: str
    may_write: bool
    nonce: str


class Access:
    """Sessions by API keys.

    Args:
        engine: of the catalogue.
        secret: signs sessions; another one ends them all.
        now: seconds since 1970.
    """

    def __init__(self, engine: Engine, secret: bytes, now: Callable[[], float] = time.time) -> None:
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._secret = secret
        self._now = now
        self._lock = threading.Lock()
        self._known: dict[bytes, tuple[float, tuple[str, bool] | None]] = {}

    def sign_in(self, key: str) -> str | None:
        """The session cookie of a key; None of a wrong one."""
        digest = hashlib.sha256(key.strip().encode()).digest()
        if self._ask(digest) is None:
            return None
        content = f"{digest.hex()}.{int(self._now()) + SESSION_S}.{secrets.token_hex(16)}"
        return f"{content}.{self._signed('session', content)}"

    def visitor(self, cookie: str | None) -> Visitor | None:
        """Whose session a cookie is; None of one that is not ours, is over, or whose key no longer counts."""
        content, _, signature = (cookie or "").rpartition(".")
        if not hmac.compare_digest(self._signed("session", content).encode(), signature.encode()):
            return None
        digest, ends, nonce = content.split(".")
        if self._now() >= int(ends):
            return None
        key = self._remembered(bytes.fromhex(digest))
        return Visitor(key[0], key[1], nonce) if key is not None else None

    def token(self, nonce: str) -> str:
        """What a form must carry."""
        return self._signed("form", nonce)

    def is_token(self, nonce: str, token: str) -> bool:
        """Whether a form carries it."""
        return hmac.compare_digest(self.token(nonce).encode(), token.encode())

    def has_keys(self) -> bool:
        """Whether anybody could sign in."""
        with self._engine.connect() as connection:
            return connection.execute(select(API_KEYS.c.name).where(_counts()).limit(1)).first() is not None

    def _remembered(self, digest: bytes) -> tuple[str, bool] | None:
        now = time.monotonic()
        with self._lock:
            until, key = self._known.get(digest, (0.0, None))
        if now < until:
            return key
        key = self._ask(digest)
        with self._lock:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[digest] = (now + TRUST_S, key)
        return key

    def _ask(self, digest: bytes) -> tuple[str, bool] | None:
        query = select(API_KEYS.c.name, API_KEYS.c.may_write).where(API_KEYS.c.digest == digest, _counts())
        with self._engine.connect() as connection:
            row = connection.execute(query).one_or_none()
        return (row.name, row.may_write) if row is not None else None

    def _signed(self, purpose: str, content: str) -> str:
        return hmac.new(self._secret, f"{purpose}:{content}".encode(), hashlib.sha256).hexdigest()


def _counts() -> ColumnElement[bool]:
    keys = API_KEYS.c
    return keys.revoked_at.is_(None) & (keys.expires_at.is_(None) | (keys.expires_at > func.now()))


class Tries:
    """Counts wrong keys, by the address they came from."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._wrong: deque[tuple[float, str]] = deque()

    def is_open(self, address: str) -> bool:
        """Whether this address may try a key now."""
        with self._lock:
            while self._wrong and self._wrong[0][0] < self._now() - _WINDOW_S:
                self._wrong.popleft()
            of_address = sum(1 for _, other in self._wrong if other == address)
            return of_address < TRIES and len(self._wrong) < TRIES_OF_ALL

    def note(self, address: str) -> None:
        """A wrong key came from there."""
        with self._lock:
            self._wrong.append((self._now(), address))


def secret_at(path: Path) -> bytes:
    """The secret of this folder's web server, made where there is none; readable by its owner alone.

    Raises:
        CloudError: it can't be read or made, or others may read it.
    """
    try:
        if not path.exists():
            _make_secret(path)
        if path.stat().st_mode & 0o077:
            raise CloudError(f"{path}: expected a secret that its owner alone may read (mode 0600), got another mode")
        secret = path.read_bytes()
    except OSError as error:
        raise CloudError(f"{path}: the web server's secret can't be kept: {error.strerror or error}") from None
    if len(secret) != SECRET_BYTES:
        raise CloudError(f"{path}: expected a secret of {SECRET_BYTES} bytes, got {len(secret)}")
    return secret


def _make_secret(path: Path) -> None:
    """It appears whole, and the first one stays, whoever else is starting."""
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_bytes(SECRET_BYTES))
        with contextlib.suppress(FileExistsError):
            os.link(fresh, path)
    finally:
        fresh.unlink(missing_ok=True)
