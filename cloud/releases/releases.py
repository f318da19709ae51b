"""Releases: what one is, as its row in the catalogue and as its target in the image repository."""

from __future__ import annotations

import datetime
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, RowMapping, select
from tuf.api.metadata import TargetFile  # type: ignore[attr-defined]

from cloud.errors import ReleaseError
from cloud.tables import RELEASES
from edge.bundle import MANIFEST

HARDWARE: Final = ("x86",)
MOST_CLASSES: Final = 16
# What vehicles take (edge/updates/claims.py), so that nothing is released in vain.
MOST_FILES: Final = 64
MOST_FILE_BYTES: Final = 1 << 30
MOST_BUNDLE_BYTES: Final = 2 << 30
FILE: Final = re.compile(r"[^.\\/\x00-\x1f\x7f][^\\/\x00-\x1f\x7f]{0,199}")
# Whole numbers that JSON readers keep exact.
MOST_COUNTER: Final = 1 << 53
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_CLASS: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,31}")
_PATH: Final = re.compile(rf"([^/]+)/([1-9][0-9]{{0,15}})/{re.escape(MANIFEST)}")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class File:
    """A file of a release.

    Attributes:
        sha256: hexadecimal.
    """

    name: str
    length: int
    sha256: str

    @property
    def key(self) -> str:
        """Where it lies among the objects."""
        return object_key(self.sha256)


@dataclass(frozen=True, slots=True)
class Release:
    """A release.

    Attributes:
        path: of its target.
        bundle: id.
        released_at: None: it waits for signatures.
        hardware: classes that it is for.
        files: the manifest first.
        revoked_at: None: it counts.
    """

    counter: int
    name: str
    version: str
    path: str
    bundle: str
    hardware: tuple[str, ...]
    files: tuple[File, ...]
    notes: str
    released_at: datetime.datetime | None = None
    revoked_at: datetime.datetime | None = None
    revoked_why: str = ""

    @staticmethod
    def of_target(target: TargetFile, version: str, notes: str) -> Release:
        """A release as its target in the image repository says it.

        Args:
            version: of the bundle, which a target does not say.

        Raises:
            ReleaseError: vehicles would not take it, or it contradicts itself.
        """
        path = target.path[:200]
        found = _PATH.fullmatch(target.path)
        if found is None:
            raise ReleaseError(f"expected NAME/COUNTER/{MANIFEST}, got {path!r}")
        try:
            custom = target.unrecognized_fields["custom"]
            files = tuple(File(one["name"], one["length"], one["sha256"]) for one in custom["files"])
            hardware, bundle, counter = classes(custom["hardware"]), custom["bundle"], custom["counter"]
            digest = target.hashes["sha256"]
        except (KeyError, TypeError):
            raise ReleaseError(f"{path}: expected bundle, counter, hardware and files, got others") from None
        if type(counter) is not int or counter != int(found[2]) or counter > MOST_COUNTER:
            raise ReleaseError(f"{path}: expected the counter of its path, got {counter!r}"[:200])
        if bundle != digest:
            raise ReleaseError(f"{path}: expected the bundle {digest}, which is its digest, got {bundle!r}"[:400])
        for file in files:
            if not (isinstance(file.name, str) and FILE.fullmatch(file.name)):
                raise ReleaseError(f"{path}: expected plain file names, got {file.name!r}"[:200])
            if type(file.length) is not int or file.length < 0 or not _SHA256.fullmatch(str(file.sha256)):
                raise ReleaseError(f"{path}: expected the length and SHA-256 of {file.name}, got others")
        if not 1 <= len(files) <= MOST_FILES or len({file.name for file in files}) < len(files):
            raise ReleaseError(f"{path}: expected 1 to {MOST_FILES} different files, got {len(files)}")
        if files[0] != File(MANIFEST, target.length, digest):
            raise ReleaseError(f"{path}: expected its manifest as the first file, got another")
        check_size(path, files)
        release = Release(counter, named(found[1]), version, target.path, bundle, hardware, files, notes)
        if release.image_target().to_dict() != target.to_dict():
            raise ReleaseError(f"{path}: expected a release's fields alone, got others")
        return release

    @property
    def size_bytes(self) -> int:
        """Of all its files."""
        return sum(file.length for file in self.files)

    def target(self) -> TargetFile:
        """As the director names it."""
        return _target(self.path, self.files[0], self._custom())

    def image_target(self) -> TargetFile:
        """As the image repository names it."""
        files = [{"name": file.name, "length": file.length, "sha256": file.sha256} for file in self.files]
        return _target(self.path, self.files[0], {**self._custom(), "files": files})

    def _custom(self) -> dict[str, Any]:
        return {"bundle": self.bundle, "counter": self.counter, "hardware": list(self.hardware)}


def object_key(sha256: str) -> str:
    """Where a file or a delta with this digest lies among the objects."""
    return f"releases/{sha256}"


def get(connection: Connection, counter: int) -> Release:
    """One release.

    Raises:
        ReleaseError: there is none.
    """
    return of_row(row(connection, counter))


def row(connection: Connection, counter: int) -> RowMapping:
    """One release's row.

    Raises:
        ReleaseError: there is none.
    """
    found = None
    if 0 < counter < 1 << 63:
        found = connection.execute(select(RELEASES).where(RELEASES.c.counter == counter)).mappings().one_or_none()
    if found is None:
        raise ReleaseError(f"expected the counter of a release, got {counter}")
    return found


def listed(connection: Connection) -> list[Release]:
    """All releases, the newest first."""
    rows = connection.execute(select(RELEASES).order_by(RELEASES.c.counter.desc())).mappings()
    return [of_row(row) for row in rows]


def of_row(row: Any) -> Release:
    """A release as its row says."""
    files = tuple(File(str(one["name"]), int(one["length"]), str(one["sha256"])) for one in row["files"])
    return Release(
        int(row["counter"]), row["name"], row["version"], row["path"], row["bundle_id"], tuple(row["hardware"]), files,
        row["notes"], row["released_at"], row["revoked_at"], row["revoked_why"],
    )  # fmt: skip


def check_size(name: str, files: Sequence[File]) -> None:
    """Whether vehicles take files of these sizes.

    Raises:
        ReleaseError: they don't.
    """
    largest, total = max(file.length for file in files), sum(file.length for file in files)
    if largest > MOST_FILE_BYTES:
        raise ReleaseError(f"{name}: expected files of at most {MOST_FILE_BYTES} bytes, got {largest}")
    if total > MOST_BUNDLE_BYTES:
        raise ReleaseError(f"{name}: expected at most {MOST_BUNDLE_BYTES} bytes in all, got {total}")


def classes(hardware: Sequence[str]) -> tuple[str, ...]:
    """Hardware classes, each once.

    Raises:
        ReleaseError: they can't be any.
    """
    found = tuple(dict.fromkeys(hardware))
    if not 1 <= len(found) <= MOST_CLASSES:
        raise ReleaseError(f"expected 1 to {MOST_CLASSES} hardware classes, got {len(found)}")
    for one in found:
        if not _CLASS.fullmatch(one):
            raise ReleaseError(f"expected a hardware class of small letters, digits and ._- up to 32, got {one[:80]!r}")
    return found


def named(name: str) -> str:
    """A release's name.

    Raises:
        ReleaseError: it can't be one.
    """
    if not _NAME.fullmatch(name):
        raise ReleaseError(f"expected a name of letters, digits and ._- up to 64, got {name[:80]!r}: --name gives one")
    return name


def _target(path: str, manifest: File, custom: dict[str, Any]) -> TargetFile:
    return TargetFile(manifest.length, {"sha256": manifest.sha256}, path, {"custom": custom})
