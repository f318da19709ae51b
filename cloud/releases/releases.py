"""Releases: a bundle's files in the store, its target in the image repository, a counter that only grows.

The files come first, under their digests; then one transaction gives the counter, writes the row and publishes the
target. A release is there whole or not at all: a publisher that is killed leaves the old repository, and at most files
that nobody names. The same bundle may be released again, with a higher counter: that is how a fleet goes back.
"""

from __future__ import annotations

import datetime
import hashlib
import re
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Engine, func, insert, select, update
from tuf.api.metadata import TargetFile  # type: ignore[attr-defined]

from cloud.errors import ReleaseError
from cloud.objects import Objects
from cloud.releases import stops, stored
from cloud.releases.image import Image
from cloud.releases.signing import Keys
from cloud.tables import RELEASES
from edge.bundle import MANIFEST, Bundle, load
from edge.durable import sync

HARDWARE: Final = ("x86",)
MOST_CLASSES: Final = 16
# What vehicles take (edge/updates/claims.py), so that nothing is released in vain.
MOST_FILES: Final = 64
MOST_FILE_BYTES: Final = 1 << 30
MOST_BUNDLE_BYTES: Final = 2 << 30
_FILE: Final = re.compile(r"[^.\\/\x00-\x1f\x7f][^\\/\x00-\x1f\x7f]{0,199}")
# Whole numbers that JSON readers keep exact.
MOST_COUNTER: Final = 1 << 53
MOST_WHY: Final = 300
MOST_NOTES: Final = 2_000
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_CLASS: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,31}")
_BLOCK_BYTES: Final = 1 << 20
_COPY: Final = "release-"
LEFT_S: Final = 3_600.0


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
    released_at: datetime.datetime
    revoked_at: datetime.datetime | None
    revoked_why: str

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


def add(
    engine: Engine,
    objects: Objects,
    keys: Keys,
    folder: Path,
    now: datetime.datetime,
    *,
    work: Path,
    hardware: Sequence[str] = HARDWARE,
    name: str | None = None,
    notes: str = "",
    least_counter: int = 1,
) -> Release:
    """Release a bundle.

    Args:
        folder: the bundle's; it is copied first, so that what is verified is what is released.
        work: a folder on the objects' disk, for the copy.
        name: of the release's target; by default the bundle's.
        least_counter: after a catalogue was lost: above all counters that vehicles ever saw.

    Raises:
        BundleError: the bundle is not whole.
        ReleaseError: it is stopped, a name or class can't be one, or keys are missing.
    """
    classes = _classes(hardware)
    if not 1 <= least_counter <= MOST_COUNTER:
        raise ReleaseError(f"expected a counter of 1 to {MOST_COUNTER}, got {least_counter}")
    if len(notes) > MOST_NOTES:
        raise ReleaseError(f"expected notes of at most {MOST_NOTES} characters, got {len(notes)}")
    _clear(work)
    with tempfile.TemporaryDirectory(prefix=_COPY, dir=work) as place:
        bundle = _copied(load(folder), Path(place))
        name = _named(name or bundle.name)
        files = tuple(_file(path) for path in files_of(bundle))
        check_size(name, files)
        _check_stops(engine, bundle.id)
        for file in files:
            objects.put(file.key, Path(place) / file.name)
    with engine.begin() as connection:
        stored.lock(connection)
        _check_stop(connection, bundle.id)
        highest = connection.execute(select(func.coalesce(func.max(RELEASES.c.counter), 0))).scalar_one()
        counter = max(int(highest) + 1, least_counter)
        release = Release(
            counter, name, bundle.version, f"{name}/{counter}/{MANIFEST}", bundle.id, classes, files, notes,
            now, None, "",
        )  # fmt: skip
        connection.execute(
            insert(RELEASES).values(
                counter=counter, name=name, version=release.version, path=release.path, bundle_id=release.bundle,
                hardware=list(classes), files=release.image_target().custom["files"], notes=notes, released_at=now,
            )
        )  # fmt: skip
        image = Image(connection, keys, now)
        image.put(release.image_target())
        image.publish()
    return release


def revoke(connection: Connection, keys: Keys, counter: int, why: str, now: datetime.datetime) -> list[Release]:
    """Take a bundle back: its releases leave the image repository, and nobody may run it any more.

    Returns:
        The releases: this one, and all others of the same bundle.

    Raises:
        ReleaseError: there is none, it is revoked already, or keys are missing.
    """
    why = " ".join(why.split())
    if not 1 <= len(why) <= MOST_WHY:
        raise ReleaseError(f"expected a reason of 1 to {MOST_WHY} characters, got {len(why)}")
    stored.lock(connection)
    release = get(connection, counter)
    if release.revoked_at is not None:
        raise ReleaseError(
            f"expected a release that counts, got {counter}, revoked {release.revoked_at:%Y-%m-%d %H:%M}"
        )
    rows = RELEASES.c
    same = [one for one in listed(connection) if one.bundle == release.bundle and one.revoked_at is None]
    connection.execute(
        update(RELEASES).where(rows.counter.in_([one.counter for one in same])).values(revoked_at=now, revoked_why=why)
    )
    stops.stop(connection, release.bundle, why)
    image = Image(connection, keys, now)
    for one in same:
        image.remove(one.path)
    image.publish()
    return [get(connection, one.counter) for one in same]


def get(connection: Connection, counter: int) -> Release:
    """One release.

    Raises:
        ReleaseError: there is none.
    """
    row = None
    if 0 < counter < 1 << 63:
        row = connection.execute(select(RELEASES).where(RELEASES.c.counter == counter)).mappings().one_or_none()
    if row is None:
        raise ReleaseError(f"expected the counter of a release, got {counter}")
    return of_row(row)


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


def files_of(bundle: Bundle) -> list[Path]:
    """All files of a bundle, its manifest first; others in its folder are none."""
    paths = {spec.file.path for spec in bundle.engines.values()}
    paths |= {lowering.path for spec in bundle.engines.values() for lowering in spec.lowerings.values()}
    paths |= {bundle.golden.path} if bundle.golden else set()
    if len(paths) >= MOST_FILES:
        raise ReleaseError(f"{bundle.path}: expected at most {MOST_FILES} files, got {len(paths) + 1}")
    for path in paths:
        if not _FILE.fullmatch(path.name):
            raise ReleaseError(f"{bundle.path}: expected plain file names up to 200, got {path.name[:80]!r}")
    return [bundle.path / MANIFEST, *sorted(paths)]


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


def _clear(work: Path) -> None:
    """Let go of copies that killed publishers left; what is young is another's, at work."""
    oldest = time.time() - LEFT_S
    for path in work.glob(f"{_COPY}*"):
        if path.stat().st_mtime < oldest:
            shutil.rmtree(path, ignore_errors=True)


def _copied(bundle: Bundle, place: Path) -> Bundle:
    for path in files_of(bundle):
        shutil.copyfile(path, place / path.name)
        sync(place / path.name)
    copy = load(place)
    if copy.id != bundle.id:
        raise ReleaseError(f"{bundle.path}: expected a bundle that nobody writes to, got one that changed")
    return copy


def _file(path: Path) -> File:
    digest, length = hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
            length += len(block)
    return File(path.name, length, digest.hexdigest())


def _check_stops(engine: Engine, bundle: str) -> None:
    with engine.begin() as connection:
        _check_stop(connection, bundle)


def _check_stop(connection: Connection, bundle: str) -> None:
    why = stops.reason(connection, bundle)
    if why is not None:
        raise ReleaseError(f"expected a bundle that is not stopped, got {bundle[:16]}, stopped for: {why}")


def _target(path: str, manifest: File, custom: dict[str, Any]) -> TargetFile:
    return TargetFile(manifest.length, {"sha256": manifest.sha256}, path, {"custom": custom})


def _classes(hardware: Sequence[str]) -> tuple[str, ...]:
    classes = tuple(dict.fromkeys(hardware))
    if not 1 <= len(classes) <= MOST_CLASSES:
        raise ReleaseError(f"expected 1 to {MOST_CLASSES} hardware classes, got {len(classes)}")
    for one in classes:
        if not _CLASS.fullmatch(one):
            raise ReleaseError(f"expected a hardware class of small letters, digits and ._- up to 32, got {one[:80]!r}")
    return classes


def _named(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ReleaseError(f"expected a name of letters, digits and ._- up to 64, got {name[:80]!r}: --name gives one")
    return name
