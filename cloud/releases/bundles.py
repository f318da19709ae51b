"""A bundle's files as a release names them: which they are, their digests, and a copy that nobody changes."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Final

from cloud.errors import ReleaseError
from cloud.releases.releases import FILE, MOST_FILES, File
from edge.bundle import MANIFEST, Bundle, load
from edge.durable import sync

_BLOCK_BYTES: Final = 1 << 20


def files_of(bundle: Bundle) -> list[Path]:
    """All files of a bundle, its manifest first; others in its folder are none.

    Raises:
        ReleaseError: vehicles would not take so many, or their names.
    """
    paths = {spec.file.path for spec in bundle.engines.values()}
    paths |= {lowering.path for spec in bundle.engines.values() for lowering in spec.lowerings.values()}
    paths |= {bundle.golden.path} if bundle.golden else set()
    if len(paths) >= MOST_FILES:
        raise ReleaseError(f"{bundle.path}: expected at most {MOST_FILES} files, got {len(paths) + 1}")
    for path in paths:
        if not FILE.fullmatch(path.name):
            raise ReleaseError(f"{bundle.path}: expected plain file names up to 200, got {path.name[:80]!r}")
    return [bundle.path / MANIFEST, *sorted(paths)]


def copied(bundle: Bundle, place: Path) -> Bundle:
    """A copy of a bundle, synced.

    Raises:
        BundleError: the copy is not whole.
        ReleaseError: the bundle changed meanwhile.
    """
    for path in files_of(bundle):
        shutil.copyfile(path, place / path.name)
        sync(place / path.name)
    copy = load(place)
    if copy.id != bundle.id:
        raise ReleaseError(f"{bundle.path}: expected a bundle that nobody writes to, got one that changed")
    return copy


def file_of(path: Path) -> File:
    """A file's name, length and digest."""
    digest, length = hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
            length += len(block)
    return File(path.name, length, digest.hexdigest())
