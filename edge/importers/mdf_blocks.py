"""Walks the block links of an MDF 4 file before a library trusts them: what a damaged size would make it allocate.

Ref: ASAM MDF 4.1, blocks HD, DG and CG: id, reserved, length (u64), number of links (u64), links (u64 each), fields.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

from edge.errors import SourceError

HEADER_AT: Final = 64
MAX_RECORD_BYTES: Final = 1 << 20
# Zipped records of constant signals shrink this much at most.
MAX_RATIO: Final = 1000
MAX_BLOCKS: Final = 100_000
_HEAD = struct.Struct("<4s4xQQ")
_GROUP = struct.Struct("<QQHHIII")  # record id, cycles, flags, separator, reserved, data bytes, invalidation bytes
_VARIABLE_LENGTH: Final = 1  # flag of groups whose two sizes are one total


def check(source: Path) -> None:
    """Refuses a file whose groups can't be.

    Raises:
        SourceError: a link leaves the file, a block is another than its link says, or records are absurdly large.
    """
    size = source.stat().st_size
    groups: set[int] = set()  # of the whole file: each belongs to one data group
    with source.open("rb") as file:
        (first_at,) = _links(source, file, size, HEADER_AT, b"##HD", 1)
        for group_at in _chain(source, file, size, first_at, b"##DG", 2, set()):
            for channel_group_at in _chain(source, file, size, group_at[1], b"##CG", 1, groups):
                _check_group(source, file, size, channel_group_at[-1])


def _chain(
    source: Path, file: IO[bytes], size: int, at: int, kind: bytes, links: int, seen: set[int]
) -> Iterator[tuple[int, ...]]:
    """The first links of each block of a list, and the block's offset; `seen` holds those of the lists before."""
    while at:
        if at in seen or len(seen) > MAX_BLOCKS:
            raise SourceError(
                f"{source}: expected a list of {kind.decode()} blocks that ends and shares none with another list, "
                "got one that does not"
            )
        seen.add(at)
        found = _links(source, file, size, at, kind, links)
        yield (*found, at)
        at = found[0]


def _links(source: Path, file: IO[bytes], size: int, at: int, kind: bytes, count: int) -> tuple[int, ...]:
    file.seek(min(at, size))
    content = file.read(_HEAD.size + 8 * count)
    if len(content) < _HEAD.size + 8 * count:
        raise SourceError(f"{source}: expected an MF4 block {kind.decode()} at byte {at}, got the end at {size}")
    found, _, _ = _HEAD.unpack_from(content)
    if found != kind:
        raise SourceError(f"{source}: expected an MF4 block {kind.decode()} at byte {at}, got {found!r}")
    return struct.unpack_from(f"<{count}Q", content, _HEAD.size)


def _check_group(source: Path, file: IO[bytes], size: int, at: int) -> None:
    file.seek(at)
    _, _, links = _HEAD.unpack(file.read(_HEAD.size))
    file.seek(min(at + _HEAD.size + 8 * links, size))
    content = file.read(_GROUP.size)
    if len(content) < _GROUP.size:
        raise SourceError(f"{source}: expected a channel group at byte {at}, got the end of the file at {size}")
    _, cycles, flags, _, _, data_bytes, invalidation_bytes = _GROUP.unpack(content)
    record_bytes = data_bytes + invalidation_bytes
    if flags & _VARIABLE_LENGTH:
        return
    if record_bytes > MAX_RECORD_BYTES or cycles * record_bytes > MAX_RATIO * size:
        raise SourceError(
            f"{source}: expected a channel group that fits into {size} bytes, "
            f"got {cycles} records of {record_bytes} bytes at byte {at}"
        )
