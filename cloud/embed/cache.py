"""Vectors that were made before, in memory and on disk: found by what they were made of and by what.

An entry on disk (`cloud.embed.entry`) is a file of its own; it appears whole or not at all, and one that is damaged is
found, counted and dropped. Both levels are bounded in bytes and in age.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Final

from cloud.embed import metrics
from cloud.embed.entry import MAX_BYTES, packed, parsed
from cloud.embed.item import Item, Vector

_ENTRY_BYTES: Final = 512  # what an entry takes in memory beside its values
_BLOCK_BYTES: Final = 4096
# Entries written, some 40 MB, between looks at what other processes wrote: each takes a second or so for 1 GiB.
_BETWEEN_LOOKS: Final = 10_000
DAY_S: Final = 86_400.0


def digest_of(item: Item) -> bytes:
    """SHA-256 of the content."""
    return hashlib.sha256(item.content).digest()


def key_of(item: Item, space: str, model: str, preprocessing: int, digest: bytes | None = None) -> bytes:
    """32 bytes that name the content, how it is read, and what encodes it into which space.

    Args:
        digest: of the content, where it is known.
    """
    named = f"{item.modality} {preprocessing} {model} {space} ".encode()
    return hashlib.sha256(named + (digest or digest_of(item))).digest()


class MemoryCache:
    """The vectors used last; any thread may ask.

    Args:
        most_bytes: kept at once.
        age_s: an entry older than this is no longer found.
        clock: Unix time, s.
    """

    def __init__(self, most_bytes: int, age_s: float, clock: Callable[[], float] = time.time) -> None:
        self._most_bytes, self._age_s, self._clock = most_bytes, age_s, clock
        self._kept: OrderedDict[bytes, tuple[float, Vector]] = OrderedDict()
        self._lock = threading.Lock()
        self.bytes = 0
        self._gauge = metrics.CACHE_BYTES.labels("memory")

    def get(self, key: bytes) -> Vector | None:
        """What was kept under the key, if it still is."""
        with self._lock:
            found = self._kept.get(key)
            if found is None:
                return None
            if not 0 <= self._clock() - found[0] <= self._age_s:
                self._drop(key)
                return None
            self._kept.move_to_end(key)
            return found[1]

    def put(self, key: bytes, vector: Vector) -> None:
        """Keep a vector; the ones used longest ago make room."""
        with self._lock:
            self._drop(key)
            self._kept[key] = self._clock(), vector
            self.bytes += len(vector.values) + _ENTRY_BYTES
            while self.bytes > self._most_bytes:
                self._drop(next(iter(self._kept)))
            self._gauge.set(self.bytes)

    def _drop(self, key: bytes) -> None:
        found = self._kept.pop(key, None)
        if found is not None:
            self.bytes -= len(found[1].values) + _ENTRY_BYTES


class DiskCache:
    """Vectors as files of a folder, which several processes may share. Its methods block; any thread may call them.

    Args:
        folder: made where there is none.
        most_bytes: of files, in whole blocks; the oldest make room. Beyond it there may be what each other process
            wrote since this one looked at the folder.
        age_s: an entry older than this is no longer found.
        clock: Unix time, s.
    """

    def __init__(self, folder: Path, most_bytes: int, age_s: float, clock: Callable[[], float] = time.time) -> None:
        self._folder, self._most_bytes, self._age_s, self._clock = folder, most_bytes, age_s, clock
        self._lock = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)
        self._gauge = metrics.CACHE_BYTES.labels("disk")
        self._look()

    def get(self, key: bytes) -> Vector | None:
        """What was kept under the key, if it still is."""
        path = self._path(key)
        try:
            with path.open("rb") as file:
                content = file.read(MAX_BYTES + 1)
        except OSError:
            return None
        entry = parsed(content, key)
        if entry is None:
            metrics.CORRUPT.labels("disk").inc()
            self._forget(path)
            return None
        made_s, vector = entry
        if not 0 <= self._clock() - made_s <= self._age_s:
            self._forget(path)
            return None
        return vector

    def put(self, key: bytes, vector: Vector) -> None:
        """Keep a vector; a disk that refuses is counted."""
        content = packed(key, vector, self._clock())
        path = self._path(key)
        part = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
        try:
            path.parent.mkdir(exist_ok=True)
            part.write_bytes(content)
            part.replace(path)
        except OSError:
            metrics.UNWRITTEN.labels("disk").inc()
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
            return
        with self._lock:
            self._since_look += 1
            if self._since_look >= _BETWEEN_LOOKS:
                with contextlib.suppress(OSError):
                    self._look()
            name = str(path.relative_to(self._folder))
            self.bytes += _blocks(len(content)) - self._files.pop(name, 0)
            self._files[name] = _blocks(len(content))
            gone = []
            while self.bytes > self._most_bytes and self._files:
                oldest, size = self._files.popitem(last=False)
                self.bytes -= size
                gone.append(oldest)
            self._gauge.set(self.bytes)
        for name in gone:
            with contextlib.suppress(OSError):
                (self._folder / name).unlink(missing_ok=True)

    def _path(self, key: bytes) -> Path:
        name = key.hex()
        return self._folder / name[:2] / name[2:]

    def _forget(self, path: Path) -> None:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        with self._lock:
            self.bytes -= self._files.pop(str(path.relative_to(self._folder)), 0)
            self._gauge.set(self.bytes)

    def _look(self) -> None:
        self._since_look = 0  # entries written
        self._files = self._found()  # name -> bytes, oldest first
        self.bytes = sum(self._files.values())
        self._gauge.set(self.bytes)

    def _found(self) -> OrderedDict[str, int]:
        """Entries that lie there, oldest first; what a killed process left half written goes."""
        found = []
        for shelf in os.scandir(self._folder):
            if not shelf.is_dir(follow_symlinks=False):
                continue
            for entry in os.scandir(shelf.path):
                if entry.name.endswith(".part"):
                    with contextlib.suppress(OSError):
                        if self._clock() - entry.stat().st_mtime > DAY_S:  # a living process may be writing it
                            Path(entry.path).unlink()
                    continue
                with contextlib.suppress(OSError):
                    status = entry.stat()
                    found.append((status.st_mtime, f"{shelf.name}/{entry.name}", _blocks(status.st_size)))
        return OrderedDict((name, size) for _, name, size in sorted(found))


def _blocks(size: int) -> int:
    return -(-size // _BLOCK_BYTES) * _BLOCK_BYTES
