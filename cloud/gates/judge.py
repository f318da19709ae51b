"""Judging a release of the catalogue: its files fetched, the gates run, each verdict kept as it comes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import Engine

from cloud.gates import book
from cloud.gates.candidate import Candidate
from cloud.gates.policy import Policy
from cloud.gates.run import run
from cloud.gates.verdict import Verdict
from cloud.gates.yardstick import Yardstick
from cloud.objects import Objects


def judge(
    engine: Engine,
    objects: Objects,
    counter: int,
    work: Path,
    *,
    against: Path | None = None,
    drives: tuple[Path, ...] = (),
    policy: Policy | None = None,
    every: bool = False,
) -> Iterator[Verdict]:
    """The verdict of each gate on a release.

    Args:
        work: a folder for the release's files, and those of the one before.
        against: the current bundle; None takes `book.newest_released`, and where there is none the reference bundle.
        drives: with ground truth.
        every: go on after a refusal.

    Raises:
        ReleaseError: there is no such release.
        ObjectError: its files are not there.
    """
    with engine.begin() as connection:
        release = book.release(connection, counter)
        earlier = book.newest_released(connection, counter, release.row["name"]) if against is None else None
        before = None if earlier is None else book.release(connection, earlier)
        book.forget(connection, counter)
    if before is not None:
        against = book.unpack(objects, before.row["files"], work / "current")
    folder = book.unpack(objects, release.row["files"], work / "candidate")
    yardstick = Yardstick(against, drives)
    candidate = Candidate(folder, yardstick, tuple(release.row["hardware"]), policy or Policy(), release)
    for verdict in run(candidate, every=every):
        with engine.begin() as connection:
            book.keep(connection, counter, verdict)
        yield verdict
