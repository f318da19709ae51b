"""A small record that survives a power cut at every write: two checksummed copies; the younger whole one counts.

    NAME.a, NAME.b    magic, generation (8 bytes), length (4 bytes), SHA-256 of all else, content

A change is written over the copy that does not count, and made durable before it is spoken of; a cut leaves the other.
Where both copies were there and neither is whole, that is said, never taken for a fresh start.
"""

from __future__ import annotations

import hashlib
import struct
from typing import Final

from edge.errors import UpdateError
from edge.updates.disk import Disk

_MAGIC: Final = b"rfrec001"
_HEAD: Final = struct.Struct("<8sQI")
_DIGEST_BYTES: Final = 32
MAX_BYTES: Final = 4 << 20


class RecordLost(UpdateError):
    """Both copies of a record are damaged, or gone while its place shows that it was there."""


class Record:
    """One record; of one writer, and any number of readers.

    Args:
        name: of the copies, without their suffix; its folder must be there.

    Attributes:
        unread: suffixes of copies that could not be read and were not written since; one may hold a younger content.
    """

    def __init__(self, disk: Disk, name: str) -> None:
        self._disk, self._name = disk, name
        self._generation = 0
        self._next = "a"
        self.unread: set[str] = set()

    def read(self) -> bytes | None:
        """The content; None where nothing was ever written. A copy that can't be read is one that is not whole.

        Raises:
            RecordLost: copies are there, and none is whole.
            OSError: one can't be read, and the other is not whole.
        """
        found: dict[str, tuple[int, bytes]] = {}
        failure: OSError | None = None
        self.unread.clear()
        there = 0
        for suffix in "ab":
            try:
                raw = self._disk.read(f"{self._name}.{suffix}")
            except FileNotFoundError:
                continue
            except OSError as error:
                failure = error
                self.unread.add(suffix)
                continue
            there += 1
            parsed = _parsed(raw)
            if parsed is not None:
                found[suffix] = parsed
        if not found:
            if failure is not None:
                raise failure
            if there:
                raise RecordLost(f"{self._name}: expected a whole copy, got {there} damaged")
            self._generation, self._next = 0, "a"
            return None
        newest = max(found, key=lambda suffix: found[suffix][0])
        self._generation, content = found[newest]
        self._next = "b" if newest == "a" else "a"
        return content

    def hold(self) -> None:
        """Make durable what `read` found: a process that died between writing and syncing left what only seems kept.

        Raises:
            OSError: the disk refused.
        """
        for suffix in "ab":
            try:
                if self._disk.size(f"{self._name}.{suffix}") is not None:
                    self._disk.sync(f"{self._name}.{suffix}")
            except OSError:
                if suffix != self._next and suffix not in self.unread:  # the copy that counts
                    raise
        self._disk.sync_folder(self._name.rpartition("/")[0])

    def write(self, content: bytes) -> None:
        """Replace the content; durable when this returns.

        Raises:
            UpdateError: it is too long.
            OSError: the disk refused; what was there counts.
        """
        if len(content) > MAX_BYTES:
            raise UpdateError(f"{self._name}: expected at most {MAX_BYTES} bytes, got {len(content)}")
        self._write(content)
        if self._next in self.unread:  # it may be read again one day, and must not count then
            self._write(content)

    def _write(self, content: bytes) -> None:
        head = _HEAD.pack(_MAGIC, self._generation + 1, len(content))
        name = f"{self._name}.{self._next}"
        is_new = self._disk.size(name) is None
        self._disk.write(name, head + hashlib.sha256(head + content).digest() + content)
        self._disk.sync(name)
        if is_new:
            self._disk.sync_folder(self._name.rpartition("/")[0])
        self.unread.discard(self._next)
        self._generation += 1
        self._next = "b" if self._next == "a" else "a"


def _parsed(raw: bytes) -> tuple[int, bytes] | None:
    start = _HEAD.size + _DIGEST_BYTES
    if len(raw) < start:
        return None
    magic, generation, length = _HEAD.unpack_from(raw)
    content = raw[start:]
    whole = magic == _MAGIC and length == len(content)
    if not whole or hashlib.sha256(raw[: _HEAD.size] + content).digest() != raw[_HEAD.size : start]:
        return None
    return generation, content
