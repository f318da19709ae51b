"""Files made once and kept for a while, in a folder of bounded size: what was used longest ago goes first."""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

# Of the bound, how much is left after a clean-up: not one clean-up a file.
_AFTER: Final = 0.8
# Written between two looks at the whole folder, as a share of the bound.
_BETWEEN: Final = 0.05


class Cache:
    """A folder of files that can be made again.

    Args:
        folder: made if it is not there; what lies in it already counts.
        most_bytes: it holds about so many at most.
    """

    def __init__(self, folder: Path, most_bytes: int) -> None:
        self.folder = folder
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        self._making: dict[str, threading.Lock] = {}
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for unfinished in folder.glob(".*"):
            unfinished.unlink(missing_ok=True)
        self._unlooked = most_bytes

    def file(self, name: str, make: Callable[[Path], None]) -> Path:
        """The file of this name, made by `make` where it is not there; one at a time makes it.

        Args:
            name: checked by the caller: no slash, no leading dot.
            make: writes the path it is given.
        """
        path = self.folder / name
        if self._used(path):
            return path
        with self._lock:
            making = self._making.setdefault(name, threading.Lock())
        try:
            with making:
                if not self._used(path):
                    self._make(path, make)
        finally:
            with self._lock:
                self._making.pop(name, None)
        return path

    def content(self, name: str, make: Callable[[], bytes]) -> bytes:
        """The bytes of this name; `make` gives them where they are not there."""
        return self.file(name, lambda path: _write(path, make())).read_bytes()

    def _make(self, path: Path, make: Callable[[Path], None]) -> None:
        fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        try:
            make(fresh)
            size = fresh.stat().st_size
            fresh.replace(path)
        finally:
            fresh.unlink(missing_ok=True)
        with self._lock:
            self._unlooked += size
            is_due = self._unlooked >= self._most_bytes * _BETWEEN
        if is_due:
            self._clean()

    def _used(self, path: Path) -> bool:
        """Whether it is there; it is younger now."""
        try:
            os.utime(path)
        except OSError:
            return False
        return True

    def _clean(self) -> None:
        files = []
        for entry in os.scandir(self.folder):
            with contextlib.suppress(FileNotFoundError):
                found = entry.stat()
                files.append((found.st_mtime_ns, found.st_size, entry.path))
        total = sum(size for _, size, _ in files)
        with self._lock:
            self._unlooked = 0
        if total <= self._most_bytes:
            return
        for _, size, path in sorted(files)[:-1]:  # the youngest is being looked at
            Path(path).unlink(missing_ok=True)
            total -= size
            if total <= self._most_bytes * _AFTER:
                return


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)
