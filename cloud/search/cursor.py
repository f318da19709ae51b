"""Where a page ended, as a text that clients hand back unread.

after     score and scene id of the last answer, in an exact order
shown     scenes of a first page that the index proposed; later pages are exact and leave these out
now       the time that "last 24 h" counts from, so that all pages mean the same hours
asked     a digest of the query: a cursor of another one is refused
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import struct
from dataclasses import dataclass
from typing import Final

from cloud.errors import QueryError
from cloud.search.predicate import ANY, to_json
from cloud.search.query import Query

MAX_SHOWN: Final = 1_000
_HEAD: Final = struct.Struct("<B8sddqH")
_VERSION: Final = 1
FIRST: Final = (math.inf, -1)


@dataclass(frozen=True, slots=True)
class Cursor:
    """The end of a page."""

    now_s: float
    after: tuple[float, int] = FIRST
    shown: tuple[int, ...] = ()
    asked: bytes = b""

    def encode(self) -> str:
        """As text."""
        head = _HEAD.pack(_VERSION, self.asked, self.now_s, *self.after, len(self.shown))
        return base64.urlsafe_b64encode(head + struct.pack(f"<{len(self.shown)}q", *self.shown)).decode().rstrip("=")


def decode(text: str) -> Cursor:
    """What `encode` gave.

    Raises:
        QueryError: anything else.
    """
    try:
        content = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        version, asked, now_s, score, scene, count = _HEAD.unpack_from(content)
        shown = struct.unpack(f"<{count}q", content[_HEAD.size :])
    except (ValueError, struct.error):
        raise QueryError("expected the cursor of a page that was answered, got another text") from None
    if version != _VERSION or count > MAX_SHOWN or math.isnan(score) or not math.isfinite(now_s):
        raise QueryError("expected the cursor of a page that was answered, got another text")
    return Cursor(now_s, (score, scene), shown, asked)


def digest(query: Query, space: str) -> bytes:
    """What tells queries apart."""
    tree = "" if query.predicate == ANY else json.dumps(to_json(query.predicate))
    hashed = hashlib.blake2b("\0".join((query.text, tree, space)).encode(), digest_size=8)
    for like in query.likes:
        hashed.update(struct.pack("<d", like.weight) + like.values)
    return hashed.digest()
