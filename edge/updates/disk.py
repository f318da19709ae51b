"""The one seam through which updates touch files, so that a test can stand in for a disk that loses power.

Names are relative to a root, with "/" between folders. A file's content is durable after `sync`, its name after
`sync_folder` of the folder it is in. Until then a power cut may leave the old, the new, a torn or an empty one.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import Final, Protocol

from edge.durable import sync

_WRITE: Final = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
_BLOCK_BYTES: Final = 1 << 20


class Disk(Protocol):
    """A folder's files."""

    def read(self, name: str) -> bytes:
        """A file's content.

        Raises:
            FileNotFoundError: there is none.
            OSError: it can't be read.
        """

    def size(self, name: str) -> int | None:
        """Of a file, bytes; None where there is none."""

    def digest(self, name: str) -> bytes | None:
        """SHA-256 of a file, which is not held in memory for it; None where there is none."""

    def write(self, name: str, content: bytes) -> None:
        """Make a file, or empty the one there is, and write this; not durable yet."""

    def append(self, name: str, offset: int, content: bytes) -> None:
        """Write this at `offset`, cutting off what lies beyond; the file is made where there is none."""

    def sync(self, name: str) -> None:
        """Make a file's content durable."""

    def rename(self, old: str, new: str) -> None:
        """Give a file, or a folder that nothing is in the way of, another name, replacing a file at once."""

    def sync_folder(self, name: str) -> None:
        """Make the names in a folder durable; "" is the root."""

    def make_folder(self, name: str) -> None:
        """Make a folder, and those above it, where there is none."""

    def remove(self, name: str) -> None:
        """Remove a file, or a folder with all that is in it; nothing happens where there is none."""

    def list(self, name: str) -> list[str]:
        """Names in a folder, sorted; none where there is no folder."""

    def path(self, name: str) -> Path:
        """Where a file lies, for who can only read by path (engines)."""


class RealDisk:
    """Files below a folder, which is made."""

    def __init__(self, root: Path) -> None:
        self._root = root
        root.mkdir(parents=True, exist_ok=True)

    def read(self, name: str) -> bytes:
        return self.path(name).read_bytes()

    def size(self, name: str) -> int | None:
        try:
            return self.path(name).stat().st_size
        except FileNotFoundError:
            return None

    def digest(self, name: str) -> bytes | None:
        digest = hashlib.sha256()
        try:
            with self.path(name).open("rb") as file:
                while block := file.read(_BLOCK_BYTES):
                    digest.update(block)
        except FileNotFoundError:
            return None
        return digest.digest()

    def write(self, name: str, content: bytes) -> None:
        with os.fdopen(
            os.open(self.path(name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb"
        ) as file:
            file.write(content)

    def append(self, name: str, offset: int, content: bytes) -> None:
        with os.fdopen(os.open(self.path(name), _WRITE, 0o600), "wb") as file:
            file.truncate(offset)
            file.seek(offset)
            file.write(content)

    def sync(self, name: str) -> None:
        sync(self.path(name))

    def rename(self, old: str, new: str) -> None:
        self.path(old).replace(self.path(new))

    def sync_folder(self, name: str) -> None:
        sync(self.path(name))

    def make_folder(self, name: str) -> None:
        self.path(name).mkdir(parents=True, exist_ok=True)

    def remove(self, name: str) -> None:
        path = self.path(name)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

    def list(self, name: str) -> list[str]:
        try:
            return sorted(path.name for path in self.path(name).iterdir())
        except FileNotFoundError:
            return []

    def path(self, name: str) -> Path:
        return self._root / name
