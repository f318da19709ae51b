"""Plans that were built on this device, by all that they depend on.

A file is a line that names the format, a JSON line with the key's parts, notes and the SHA-256 of notes and content,
then the content. It appears whole or not at all. What can't be trusted is not used: a file that breaks off, was
altered, or is of another key is named and built anew. Of each name those that were used last are kept.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edge.durable import sync
from edge.errors import BundleError

_MAGIC: Final = b"roadfuse plan 1\n"
_MAX_HEADER_BYTES: Final = 1 << 20
_KEPT: Final = 16  # of a name: releases of a year and more, of which three are on board at once
_DIGITS: Final = 24  # of a key's digest, in a file's name


@dataclass(frozen=True, slots=True)
class Entry:
    """What a cache file holds: the content, and notes about it."""

    content: bytes
    notes: dict[str, Any]


class PlanCache:
    """A folder of plans and timing caches.

    Args:
        folder: made where it is missing, for this user alone: a plan is code that the GPU and the host run.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, name: str, key: Mapping[str, str]) -> Path:
        """Of the entry, whether it is there or not."""
        return self.folder / f"{name}-{digest(key)[:_DIGITS]}"

    def read(self, name: str, key: Mapping[str, str]) -> Entry | None:
        """The entry; None where there is none.

        Raises:
            BundleError: there is one that can't be used; the message says why.
        """
        path = self.path(name, key)
        try:
            raw = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise BundleError(f"{path}: expected a plan of this cache, got: {error.strerror}") from None
        entry = _entry(path, key, raw)
        with suppress(OSError):
            os.utime(path)  # used now
        return entry

    def write(self, name: str, key: Mapping[str, str], content: bytes, notes: Mapping[str, Any]) -> Path:
        """Keep an entry.

        Raises:
            OSError: the folder can't be written, which is no fault of what was to be kept.
        """
        path = self.path(name, key)
        header = {"key": dict(key), "notes": dict(notes), "sha256": _sha256(notes, content)}
        raw = _MAGIC + json.dumps(header, sort_keys=True).encode() + b"\n" + content
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _write_whole(path, raw)
        except OSError as error:
            raise OSError(f"{self.folder}: expected a folder to keep plans in, got: {error.strerror}") from None
        with suppress(OSError):
            self._let_go(name, path)
        return path

    def _let_go(self, name: str, written: Path) -> None:
        """What was used longest ago, and what writers that were killed have left."""
        others = {*self.folder.glob(f"{name}-{'?' * _DIGITS}")} - {written}  # which stays, whatever the clock says
        for path in sorted(others, key=lambda path: path.stat().st_mtime_ns)[: 1 - _KEPT]:
            path.unlink(missing_ok=True)
        for path in self.folder.glob(".*.partial"):
            writer = re.search(r"\.(\d+)\.partial$", path.name)
            if writer and not Path("/proc", writer[1]).exists():
                path.unlink(missing_ok=True)


def default_folder() -> Path:
    """Where plans lie: $XDG_CACHE_HOME/roadfuse/plans."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "roadfuse" / "plans"


def digest(key: Mapping[str, str]) -> str:
    """One name for all parts of a key."""
    return hashlib.sha256(json.dumps(dict(key), sort_keys=True).encode()).hexdigest()


def _entry(path: Path, key: Mapping[str, str], raw: bytes) -> Entry:
    line, newline, content = raw[len(_MAGIC) : len(_MAGIC) + _MAX_HEADER_BYTES].partition(b"\n")
    if not raw.startswith(_MAGIC) or not newline:
        raise BundleError(f"{path}: expected a plan of this cache, got another file")
    try:
        header = json.loads(line)
        of, expected, notes = dict(header["key"]), str(header["sha256"]), dict(header["notes"])
    except (ValueError, KeyError, TypeError):
        raise BundleError(f"{path}: expected a plan of this cache, got a damaged header") from None
    if of != dict(key):
        other = next(part for part in sorted({*of, *key}) if of.get(part) != key.get(part))
        raise BundleError(f"{path}: expected a plan for {other} {key.get(other)}, got one for {of.get(other)}")
    content = raw[len(_MAGIC) + len(line) + 1 :]
    got = _sha256(notes, content)
    if got != expected:
        raise BundleError(f"{path}: expected SHA-256 {expected[:16]}..., got {got[:16]}...")
    return Entry(content, notes)


def _sha256(notes: Mapping[str, Any], content: bytes) -> str:
    return hashlib.sha256(json.dumps(dict(notes), sort_keys=True).encode() + content).hexdigest()


def _write_whole(path: Path, raw: bytes) -> None:
    """The file is the old one or the new one at every instant, power cuts included."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        sync(path.parent)
    finally:
        partial.unlink(missing_ok=True)
