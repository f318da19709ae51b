"""Segments of a rollout's log: what vehicles said a while ago, as objects; and the whole log, read through both.

Observations are nearly all of a log, and what they amount to is kept (`book.keep`): only a replay reads them again. So
those of a block of numbers become one object, zstd of JSON lines ({"number", "at", "content"}, as the rows had them),
and its row in ROLLOUT_SEGMENTS says what has to be in it. Commands, orders and records stay in ROLLOUT_LOG.
"""

from __future__ import annotations

import hashlib
import heapq
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import zstandard
from sqlalchemy import Connection, Engine, insert, select

from cloud.errors import ObjectError, RolloutError
from cloud.objects import Objects
from cloud.rollouts import log
from cloud.rollouts.log import Entry
from cloud.tables import ROLLOUT_SEGMENTS

# Numbers of a block: 1-250, 251-500, ... Four times as many take 5 % less as objects, but what makes no whole block
# stays in the database: of 10,000 vehicles that drive some MB a log.
BLOCK: Final = 250
# Beyond it a segment takes twice the time and is hardly smaller.
_LEVEL: Final = 9


@dataclass(frozen=True, slots=True)
class Segment:
    """Observations of a log that are an object.

    Attributes:
        first, last: numbers of the first and the last of them; other rows have numbers between.
        rows: how many they are.
        sha256, size_bytes: of the object.
    """

    rollout: str
    first: int
    last: int
    rows: int
    sha256: bytes
    size_bytes: int

    @property
    def key(self) -> str:
        """Where it lies; of the same rows always the same."""
        return f"rollouts/{self.rollout}/{self.first}-{self.last}-{self.sha256.hex()[:16]}.jsonl.zst"


def packed(rollout: str, rows: Iterable[tuple[int, str, str]]) -> tuple[Segment, bytes]:
    """A segment, and the object that it is.

    Args:
        rows: observations in their order, at least one: number, UTC in ISO 8601, content as PostgreSQL writes it.
    """
    compressor, parts, numbers = zstandard.ZstdCompressor(level=_LEVEL).compressobj(), [], []
    for number, at, content in rows:
        numbers.append(number)
        parts.append(compressor.compress(f'{{"number": {number}, "at": "{at}", "content": {content}}}\n'.encode()))
    packed = b"".join((*parts, compressor.flush()))
    digest = hashlib.sha256(packed).digest()
    return Segment(rollout, numbers[0], numbers[-1], len(numbers), digest, len(packed)), packed


def entries(segment: Segment, objects: Objects) -> Iterator[Entry]:
    """What is in it.

    Raises:
        RolloutError: it is not there, or not what it was; nothing of it was given then.
    """
    what = f"{segment.key}: expected rows {segment.first} to {segment.last} of {segment.rollout}"
    try:
        content = objects.get(segment.key)
    except ObjectError as error:
        raise RolloutError(f"{what}, got no object: {str(error).removeprefix(f'{segment.key}: ')}") from None
    if (digest := hashlib.sha256(content).digest()) != segment.sha256:
        raise RolloutError(f"{what} with SHA-256 {segment.sha256.hex()}, got {digest.hex()}")
    lines = io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(io.BytesIO(content)), "utf-8", newline="\n")
    return (Entry(said["number"], log.OBSERVED, said["content"], said["at"]) for said in map(log.parsed, lines))


def note(connection: Connection, segment: Segment) -> None:
    """Its rows are that object from now on; the caller deletes them in the same transaction."""
    values = {
        "rollout": segment.rollout, "first": segment.first, "last": segment.last, "rows": segment.rows,
        "sha256": segment.sha256, "bytes": segment.size_bytes,
    }  # fmt: skip
    connection.execute(insert(ROLLOUT_SEGMENTS).values(values))


def of(connection: Connection, rollout: str) -> list[Segment]:
    """All of a rollout's, in their order."""
    row = ROLLOUT_SEGMENTS.c
    query = select(row.rollout, row.first, row.last, row.rows, row.sha256, row.bytes).where(row.rollout == rollout)
    return [Segment(*found) for found in connection.execute(query.order_by(row.first))]


def read(engine: Engine, rollout: str, objects: Objects) -> Iterator[Entry]:
    """All rows of a log in their order, wherever they lie; one segment at a time is in memory.

    Raises:
        RolloutError: a segment is missing or damaged.
    """
    # One snapshot: rows that are moved meanwhile are neither missing nor there twice.
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection, connection.begin():
        moved = (entry for segment in of(connection, rollout) for entry in entries(segment, objects))
        yield from heapq.merge(moved, log.streamed(connection, rollout), key=_number)


def _number(entry: Entry) -> int:
    return entry.number
