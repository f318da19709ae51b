"""Deltas between released files: made once by a job, kept beside the files, picked by what they cost a vehicle.

A file is worth a delta from the files of the same name that vehicles may have: those of the last releases of the same
bundle, and of the reference bundle that came with roadfuse. Which of them were tried is in the catalogue, with NULL
where the whole file is the cheaper way; so nothing is tried twice, and a vehicle's question is one read. A file that
nobody made deltas of yet is answered with the whole file, and asked for from the worker.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Engine, any_, literal, select
from sqlalchemy.dialects.postgresql import ARRAY, BYTEA, JSONB, insert
from sqlalchemy.sql.expression import cast

from cloud.errors import Hopeless, ObjectError, ReleaseError
from cloud.hand import Task
from cloud.jobs import Queue
from cloud.objects import Objects
from cloud.releases.releases import File, Release, listed, object_key
from cloud.tables import DELTAS, JOBS, RELEASES
from edge.bundle import REFERENCE
from edge.errors import UpdateError
from edge.updates.delta import make

KIND: Final = "deltas"  # of the job; its subject is the release's counter
PRIORITY: Final = 1  # a fleet that waits for an update goes before scenes
# Releases before a release from whose files there are deltas.
MOST_BASES: Final = 4
# Smaller files come whole, and larger ones do not fit into a worker's hand beside their base.
LEAST_BYTES: Final = 512
MOST_BYTES: Final = 64 << 20
# What a delta costs a vehicle beside its bytes: a question more, and its time, as bytes that a link would have
# carried meanwhile (a Jetson's core applies some 50 MB/s, a good link brings 2).
QUESTION_BYTES: Final = 256
APPLIED_SHARE: Final = 0.04


@dataclass(frozen=True, slots=True)
class Delta:
    """A pair of files, and the delta between them.

    Attributes:
        delta: SHA-256; None: the whole file is the cheaper way.
        bytes: of the delta; of the file where there is none.
    """

    base: bytes
    want: bytes
    delta: bytes | None
    bytes: int


def cost(want_bytes: int, delta_bytes: int | None = None) -> float:
    """What a file costs a vehicle, as bytes; whole, or by a delta."""
    return want_bytes if delta_bytes is None else delta_bytes + QUESTION_BYTES + APPLIED_SHARE * want_bytes


def cheapest(engine: Engine, have: list[bytes], want: bytes) -> tuple[bytes, bytes, int] | None:
    """The cheapest way from files on board to another one.

    Args:
        have: SHA-256 of the files on board, as many as a caller lets pass.
        want: SHA-256.

    Returns:
        SHA-256 of the base and of the delta, and the delta's bytes; None where the whole file is the cheaper way, or no
        delta is made yet: then it is asked for.
    """
    is_pair = (DELTAS.c.want_sha256 == want) & (DELTAS.c.base_sha256 == any_(literal(have, ARRAY(BYTEA))))
    with engine.connect() as connection:
        rows = connection.execute(select(DELTAS).where(is_pair).order_by(DELTAS.c.bytes, DELTAS.c.base_sha256)).all()
        counter = _unasked(connection, want) if have and not rows else None
    if counter is not None:
        ask(engine, counter)
    return next(
        ((bytes(row.base_sha256), bytes(row.delta_sha256), int(row.bytes)) for row in rows if row.delta_sha256), None
    )


def prepare(
    engine: Engine, objects: Objects, counter: int, say: Callable[[float], None] = lambda share: None
) -> list[Delta]:
    """Make the deltas to a release's files that there are not yet; may be repeated, and goes on where it was stopped.

    Args:
        say: how far it is, 0..1.

    Returns:
        Those that were made now.

    Raises:
        ReleaseError: there is no such release.
        ObjectError: the store refused.
    """
    with engine.connect() as connection:
        releases = listed(connection)
        pairs = [pair for pair in _pairs(releases, counter) if not _is_tried(connection, *pair)]
    made = []
    for number, (base, want) in enumerate(pairs):
        say(number / len(pairs))
        found = _made(objects, base, want)
        made.append(found)
        with engine.begin() as connection:
            row = insert(DELTAS).values(
                base_sha256=found.base, want_sha256=found.want, delta_sha256=found.delta, bytes=found.bytes
            )
            connection.execute(row.on_conflict_do_nothing())
    return made


def deltas(task: Task) -> dict[str, Any]:
    """The job: `prepare`; its subject is the release's counter.

    Raises:
        Hopeless: there is no such release, or a file of it is gone.
    """
    try:
        made = prepare(
            task.engine, task.objects, int(task.subject), lambda share: task.say("comparing", share, None)
        )  # fmt: skip
    except (ValueError, ReleaseError) as error:
        raise Hopeless(str(error)) from None
    return {"tried": len(made), "kept": sum(one.delta is not None for one in made)}


def ask(engine: Engine, counter: int) -> None:
    """Have the worker make a release's deltas."""
    Queue(engine).put(KIND, str(counter), priority=PRIORITY)


@dataclass(frozen=True, slots=True)
class _Source:
    """A released file, or one of the reference bundle's."""

    file: File
    is_reference: bool = False

    def read(self, objects: Objects) -> bytes:
        content = (REFERENCE / self.file.name).read_bytes() if self.is_reference else objects.get(self.file.key)
        if hashlib.sha256(content).hexdigest() != self.file.sha256:
            raise ObjectError(f"{self.file.key}: expected {self.file.length} bytes as released, got others")
        return content


def _pairs(releases: list[Release], counter: int) -> Iterator[tuple[_Source, _Source]]:
    """Base and wanted file, for each that is worth a try; `releases` are the newest first."""
    release = next((one for one in releases if one.counter == counter), None)
    if release is None:
        raise ReleaseError(f"expected the counter of a release, got {counter}")
    # Also newer ones: a fleet goes back by a new release of an old bundle.
    others = [one for one in releases if one.name == release.name and one.bundle != release.bundle]
    distinct = list({one.bundle: one for one in reversed(others)}.values())[::-1][:MOST_BASES]
    seen = set()
    for file in release.files:
        if not LEAST_BYTES <= file.length <= MOST_BYTES:
            continue
        bases = [_Source(base) for one in distinct for base in one.files if base.name == file.name]
        bases += [_Source(base, True) for base in _reference() if base.name == file.name]
        for base in bases:
            pair = base.file.sha256, file.sha256
            if base.file.sha256 != file.sha256 and base.file.length <= MOST_BYTES and pair not in seen:
                seen.add(pair)
                yield base, _Source(file)


def _reference() -> list[File]:
    contents = {path.name: path.read_bytes() for path in sorted(REFERENCE.iterdir()) if path.is_file()}
    return [File(name, len(content), hashlib.sha256(content).hexdigest()) for name, content in contents.items()]


def _made(objects: Objects, base: _Source, want: _Source) -> Delta:
    pair = bytes.fromhex(base.file.sha256), bytes.fromhex(want.file.sha256)
    whole = want.file.length
    try:
        content = make(base.read(objects), want.read(objects))
    except UpdateError:  # no delta gives these bytes again
        return Delta(*pair, None, whole)
    if cost(whole, len(content)) >= cost(whole):
        return Delta(*pair, None, whole)
    digest = hashlib.sha256(content)
    objects.put_contents([(object_key(digest.hexdigest()), content)])
    return Delta(*pair, digest.digest(), len(content))


def _is_tried(connection: Connection, base: _Source, want: _Source) -> bool:
    of = (DELTAS.c.base_sha256 == bytes.fromhex(base.file.sha256)) & (
        DELTAS.c.want_sha256 == bytes.fromhex(want.file.sha256)
    )
    return connection.execute(select(DELTAS.c.bytes).where(of)).first() is not None


def _unasked(connection: Connection, want: bytes) -> int | None:
    """The newest release with a file, where nobody asked for its deltas yet."""
    has_it = RELEASES.c.files.op("@>")(cast([{"sha256": want.hex()}], JSONB))
    row = connection.execute(
        select(RELEASES.c.counter, RELEASES.c.files)
        .where(has_it, RELEASES.c.revoked_at.is_(None))
        .order_by(RELEASES.c.counter.desc())
        .limit(1)
    ).one_or_none()
    if row is None or all(file["length"] < LEAST_BYTES for file in row.files if file["sha256"] == want.hex()):
        return None
    is_asked = (JOBS.c.kind == KIND) & (JOBS.c.subject == str(row.counter))
    return None if connection.execute(select(JOBS.c.id).where(is_asked)).first() else int(row.counter)
