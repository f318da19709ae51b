"""Releasing a bundle and taking it back: files in the store, targets in the image repository, rows in the catalogue.

The files come first, under their digests; then targets are drafted, signed by offline keys, and published with the
rows in one transaction. A release is there whole or not at all: a publisher that is killed leaves the old repository,
and at most files that nobody names. The counter only grows. The same bundle may be released again, with a higher
counter: that is how a fleet goes back.
"""

from __future__ import annotations

import datetime
import shutil
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, Engine, func, insert, select, update

from cloud.errors import ReleaseError
from cloud.objects import Objects
from cloud.releases import ceremony, review, stops
from cloud.releases.bundles import copied, file_of, files_of
from cloud.releases.image import Image
from cloud.releases.releases import HARDWARE, MOST_COUNTER, Release, check_size, classes, get, listed, named
from cloud.releases.request import Request, Said
from cloud.releases.roles import Name
from cloud.releases.signing import Keys
from cloud.tables import RELEASES
from edge.bundle import MANIFEST, load

MOST_WHY: Final = 300
MOST_NOTES: Final = 2_000
LEFT_S: Final = 3_600.0
_COPY: Final = "release-"


@dataclass(frozen=True, slots=True)
class Accepted:
    """What was published.

    Attributes:
        names: of metadata with a new version.
    """

    added: tuple[Release, ...]
    revoked: tuple[Release, ...]
    names: tuple[Name, ...]


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
    """Release a bundle, with all keys at hand.

    Args:
        folder, work, hardware, name, notes, least_counter: as of `propose_add`.

    Raises:
        BundleError: the bundle is not whole.
        ReleaseError: it is stopped, a name or class can't be one, or keys are missing.
    """
    draft = keep(engine, objects, folder, work=work, hardware=hardware, name=name, notes=notes)
    with engine.begin() as connection:
        (release,) = finish(connection, propose_add(connection, draft, now, least_counter), keys, now).added
    return release


def keep(
    engine: Engine,
    objects: Objects,
    folder: Path,
    *,
    work: Path,
    hardware: Sequence[str] = HARDWARE,
    name: str | None = None,
    notes: str = "",
) -> Release:
    """Keep a bundle's files among the objects, to be released.

    Args:
        folder: the bundle's; it is copied first, so that what is verified is what is released.
        work: a folder on the objects' disk, for the copy.
        name: of the release's target; by default the bundle's.

    Returns:
        The release to be, without a counter.

    Raises:
        BundleError: the bundle is not whole.
        ReleaseError: it is stopped, or a name or class can't be one.
    """
    for_classes = classes(hardware)
    if len(notes) > MOST_NOTES:
        raise ReleaseError(f"expected notes of at most {MOST_NOTES} characters, got {len(notes)}")
    _clear(work)
    with tempfile.TemporaryDirectory(prefix=_COPY, dir=work) as place:
        bundle = copied(load(folder), Path(place))
        name = named(name or bundle.name)
        files = tuple(file_of(path) for path in files_of(bundle))
        check_size(name, files)
        with engine.begin() as connection:
            _check_stop(connection, bundle.id)
        for file in files:
            objects.put(file.key, Path(place) / file.name)
    return Release(0, name, bundle.version, "", bundle.id, for_classes, files, notes)


def propose_add(connection: Connection, draft: Release, now: datetime.datetime, least_counter: int = 1) -> Request:
    """Draft a release's target, under the next counter.

    Args:
        least_counter: after a catalogue was lost: above all counters that vehicles ever saw.

    Raises:
        ReleaseError: it is stopped, or there is no repository.
    """
    if not 1 <= least_counter <= MOST_COUNTER:
        raise ReleaseError(f"expected a counter of 1 to {MOST_COUNTER}, got {least_counter}")
    image = Image(connection, now)
    _check_stop(connection, draft.bundle)
    counter = max(_highest(connection) + 1, least_counter)
    release = replace(draft, counter=counter, path=f"{draft.name}/{counter}/{MANIFEST}")
    image.put(release.image_target())
    return ceremony.propose(connection, image.drafts(), now, Said(version=release.version, notes=release.notes))


def revoke(connection: Connection, keys: Keys, counter: int, why: str, now: datetime.datetime) -> list[Release]:
    """Take a bundle back, with all keys at hand: nobody may run it any more.

    Returns:
        The releases: this one, and all others of the same bundle.

    Raises:
        ReleaseError: there is none, it is revoked already, or keys are missing.
    """
    return list(finish(connection, propose_revoke(connection, counter, why, now), keys, now).revoked)


def propose_revoke(connection: Connection, counter: int, why: str, now: datetime.datetime) -> Request:
    """Draft the image repository without a bundle's releases.

    Raises:
        ReleaseError: there is none, or it is revoked already.
    """
    why = " ".join(why.split())
    if not 1 <= len(why) <= MOST_WHY:
        raise ReleaseError(f"expected a reason of 1 to {MOST_WHY} characters, got {len(why)}")
    image = Image(connection, now)
    release = get(connection, counter)
    if release.revoked_at is not None:
        raise ReleaseError(
            f"expected a release that counts, got {counter}, revoked {release.revoked_at:%Y-%m-%d %H:%M}"
        )
    for one in _same(connection, release.bundle):
        image.remove(one.path)
    return ceremony.propose(connection, image.drafts(), now, Said(why=why))


def finish(connection: Connection, request: Request, keys: Keys, now: datetime.datetime) -> Accepted:
    """Sign and publish a request that was proposed in this transaction, with all keys at hand.

    Raises:
        ReleaseError: keys are missing.
    """
    ceremony.sign(request, keys.offline)
    return _publish(connection, request, keys, now)


def accept(engine: Engine, objects: Objects, request: Request, keys: Keys, now: datetime.datetime) -> Accepted:
    """Publish a request that was signed elsewhere.

    Raises:
        ObjectError: a file of a release is not among the objects any more.
        ReleaseError: it is not what its words say, signatures are missing, or the repository has moved on.
    """
    change = review.check(request, now)
    review.check_signed(request)
    for file in (file for release in change.added for file in release.files):
        size = objects.size(file.key)
        if size != file.length:
            raise ReleaseError(f"{file.name}: expected {file.length} bytes among the objects, got {size}")
    with engine.begin() as connection:
        ceremony.check_current(connection, request)
        return _publish(connection, request, keys, now)


def _publish(connection: Connection, request: Request, keys: Keys, now: datetime.datetime) -> Accepted:
    """Metadata and rows in one transaction."""
    change = review.change(request)
    names = ceremony.publish(connection, request, keys, now)
    added = tuple(_enter(connection, release, now) for release in change.added)
    revoked = _withdraw(connection, change.removed, request.said.why, now) if change.removed else ()
    return Accepted(added, revoked, tuple(names))


def _enter(connection: Connection, release: Release, now: datetime.datetime) -> Release:
    _check_stop(connection, release.bundle)
    highest = _highest(connection)
    if release.counter <= highest:
        raise ReleaseError(f"expected a counter above {highest}, got {release.counter}: propose it again")
    connection.execute(
        insert(RELEASES).values(
            counter=release.counter, name=release.name, version=release.version, path=release.path,
            bundle_id=release.bundle, hardware=list(release.hardware), notes=release.notes,
            files=release.image_target().custom["files"], released_at=now,
        )
    )  # fmt: skip
    return get(connection, release.counter)


def _withdraw(connection: Connection, paths: Sequence[str], why: str, now: datetime.datetime) -> tuple[Release, ...]:
    if not 1 <= len(why) <= MOST_WHY:
        raise ReleaseError(f"expected a reason of 1 to {MOST_WHY} characters, got {len(why)}")
    gone = [one for one in listed(connection) if one.path in paths and one.revoked_at is None]
    for bundle in {one.bundle for one in gone}:
        if {one.path for one in _same(connection, bundle)} - set(paths):
            raise ReleaseError(f"expected all releases of bundle {bundle[:16]}, got some")
        stops.stop(connection, bundle, why)
    counters = [one.counter for one in gone]
    connection.execute(update(RELEASES).where(RELEASES.c.counter.in_(counters)).values(revoked_at=now, revoked_why=why))
    return tuple(get(connection, counter) for counter in counters)


def _same(connection: Connection, bundle: str) -> list[Release]:
    return [one for one in listed(connection) if one.bundle == bundle and one.revoked_at is None]


def _highest(connection: Connection) -> int:
    return int(connection.execute(select(func.coalesce(func.max(RELEASES.c.counter), 0))).scalar_one())


def _check_stop(connection: Connection, bundle: str) -> None:
    why = stops.reason(connection, bundle)
    if why is not None:
        raise ReleaseError(f"expected a bundle that is not stopped, got {bundle[:16]}, stopped for: {why}")


def _clear(work: Path) -> None:
    """Let go of copies that killed publishers left; what is young is another's, at work."""
    oldest = time.time() - LEFT_S
    for path in work.glob(f"{_COPY}*"):
        with suppress(FileNotFoundError):  # another's, who is done
            if path.stat().st_mtime < oldest:
                shutil.rmtree(path, ignore_errors=True)
