"""Gates in the database: a release's files as a folder, its signatures, and the verdicts on it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, delete, exists, func, or_, select
from sqlalchemy.dialects.postgresql import insert

from cloud.errors import ReleaseError
from cloud.gates.candidate import Release
from cloud.gates.run import GATES
from cloud.gates.verdict import REFUSED, Verdict
from cloud.objects import Objects
from cloud.releases import releases
from cloud.rollouts.evidence import DONE
from cloud.tables import GATES as VERDICTS
from cloud.tables import METADATA_FILES, RELEASES, ROLLOUTS, STOPS

_IMAGE = "image"


def release(connection: Connection, counter: int) -> Release:
    """A release's row and the newest signed metadata.

    Raises:
        ReleaseError: there is no such release.
    """
    row = releases.row(connection, counter)
    files = METADATA_FILES.c
    newest = select(files.role, func.max(files.version).label("version")).where(files.repository == _IMAGE)
    last = newest.group_by(files.role).subquery()
    chosen = select(files.role, files.content).join(
        last, (files.role == last.c.role) & (files.version == last.c.version) & (files.repository == _IMAGE)
    )
    metadata = {str(role): bytes(content) for role, content in connection.execute(chosen)}
    return Release(counter, dict(row), metadata)


def newest_released(connection: Connection, before: int, name: str) -> int | None:
    """The release that came last before this one and that the fleet runs, or may run: None where there is none.

    It passed its gates or was rolled out by somebody's word, and is neither revoked nor stopped. Beside one that was
    refused, each release might be a little worse than the one before.
    """
    here = RELEASES.c
    has_passed = (
        select(func.bool_and(VERDICTS.c.verdict != REFUSED)).where(VERDICTS.c.release == here.counter).scalar_subquery()
    )
    is_everywhere = exists().where(ROLLOUTS.c.release == here.counter, ROLLOUTS.c.state == DONE)
    is_stopped = exists().where(STOPS.c.bundle_id == here.bundle_id, STOPS.c.lifted_at.is_(None))
    query = select(func.max(here.counter)).where(
        here.counter < before, here.name == name, here.revoked_at.is_(None), ~is_stopped, or_(has_passed, is_everywhere)
    )
    found = connection.execute(query).scalar_one_or_none()
    return None if found is None else int(found)


def unpack(objects: Objects, files: list[dict[str, Any]], folder: Path) -> Path:
    """The files of a release as a bundle's folder; whether they are what was signed is the first gate's to say.

    Raises:
        ReleaseError: a name that leads elsewhere.
        ObjectError: one is not there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for entry in files:
        name = str(entry["name"])
        if Path(name).name != name or name in ("", ".", ".."):
            raise ReleaseError(f"expected a file's name, got {name[:80]!r}")
        objects.download(releases.object_key(entry["sha256"]), folder / name)
    return folder


def forget(connection: Connection, counter: int) -> None:
    """Before a release is judged anew."""
    connection.execute(delete(VERDICTS).where(VERDICTS.c.release == counter))


def keep(connection: Connection, counter: int, verdict: Verdict) -> None:
    """Write one verdict down, over an older one."""
    given = {key: value for key, value in dataclasses.asdict(verdict).items() if key != "gate"}
    told = insert(VERDICTS).values(
        release=counter, gate=verdict.gate, place=list(GATES).index(verdict.gate), ran_at=func.now(), **given
    )
    columns = {key: told.excluded[key] for key in (*given, "place", "ran_at")}
    connection.execute(told.on_conflict_do_update(index_elements=["release", "gate"], set_=columns))


def verdicts(connection: Connection, counter: int) -> list[dict[str, Any]]:
    """What the gates said of a release, in their order."""
    query = select(VERDICTS).where(VERDICTS.c.release == counter).order_by(VERDICTS.c.place)
    return [dict(row) for row in connection.execute(query).mappings()]
