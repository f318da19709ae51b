"""A clip that is made anew while a late call keeps the old one: the new one counts, nothing of the old one stays."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, insert, select, text

from cloud.arrivals import Arrivals
from cloud.calls import Threads
from cloud.catalogue import RECEIVE, Catalogue
from cloud.database import connect, migrate
from cloud.errors import Refused
from cloud.ingest import Ingest
from cloud.limits import Limits
from cloud.objects import Objects, clip_key
from cloud.report import checked
from cloud.staging import Key, Staging
from cloud.tables import SCENES, VEHICLES
from roadfuse.v1 import ingest_pb2

from .fleet import Clip, Status, clip, summary


class Late(Objects):
    """Objects of a server that is held up just before it keeps one: what `first` does happens before."""

    first: Callable[[], None] = staticmethod(lambda: None)

    def put(self, key: str, path: Path) -> None:
        self.first()
        super().put(key, path)

    def put_contents(self, items: Sequence[tuple[str, bytes]]) -> None:
        self.first()
        super().put_contents(items)


@pytest.fixture(scope="module")
def engine(database: str) -> Iterator[Engine]:
    engine = connect(database)
    migrate(engine)
    with engine.begin() as connection:
        connection.execute(insert(VEHICLES), [{"name": "car"}])
    yield engine
    engine.dispose()


@pytest.fixture
def key() -> Key:
    return "car", os.urandom(16), 1


def tell(engine: Engine, key: Key, of: Clip, *former: Clip) -> None:
    told = summary(1, of)
    told.former_sha256.extend(one.sha256 for one in former)
    request = ingest_pb2.ReportRequest(outbox=key[1], last_sequence=1, scenes=[told])
    Catalogue(engine, Limits()).report(key[0], checked(request, Limits()))


def keep(engine: Engine, objects: Objects, key: Key, of: Clip) -> None:
    """As Put does."""
    asyncio.run(Arrivals(engine, objects, Threads(2)).keep(key, of.sha256, of.content))


def kept(engine: Engine, folder: Path, key: Key) -> bytes:
    """What lies where the catalogue says; there is nothing else."""
    with engine.connect() as connection:
        scene = connection.execute(select(SCENES.c.object_key, SCENES.c.sha256).where(SCENES.c.outbox == key[1])).one()
    content = Objects(str(folder)).get(scene.object_key)
    assert Clip(1, content).sha256 == bytes(scene.sha256)
    assert [path.read_bytes() for path in folder.rglob("*") if path.is_file()] == [content]
    return content


def test_a_late_repeat_of_put_replaces_nothing(engine: Engine, tmp_path: Path, key: Key) -> None:
    old, new, late = clip(1, 1_000), clip(1, 900), Late(str(tmp_path))

    def redacted_and_up() -> None:
        tell(engine, key, new, old)
        keep(engine, Objects(str(tmp_path)), key, new)

    tell(engine, key, old)
    late.first = redacted_and_up
    with pytest.raises(Refused, match="as it was told of") as refusal:
        keep(engine, late, key, old)
    assert refusal.value.status is Status.INVALID_ARGUMENT
    assert kept(engine, tmp_path, key) == new.content


def test_put_of_a_clip_that_is_told_anew_meanwhile_leaves_nothing(engine: Engine, tmp_path: Path, key: Key) -> None:
    old, new, late = clip(1, 1_000), clip(1, 900), Late(str(tmp_path))
    tell(engine, key, old)
    late.first = lambda: tell(engine, key, new, old)
    with pytest.raises(Refused, match="as it was told of"):
        keep(engine, late, key, old)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    keep(engine, Objects(str(tmp_path)), key, new)
    assert kept(engine, tmp_path, key) == new.content


def test_of_two_equal_puts_one_counts_and_both_are_answered(engine: Engine, tmp_path: Path, key: Key) -> None:
    one, late = clip(1, 1_000), Late(str(tmp_path))
    tell(engine, key, one)
    late.first = lambda: keep(engine, Objects(str(tmp_path)), key, one)
    keep(engine, late, key, one)
    assert kept(engine, tmp_path, key) == one.content


@pytest.mark.parametrize("is_new_up", [True, False])
def test_a_late_complete_replaces_nothing(engine: Engine, tmp_path: Path, key: Key, is_new_up: bool) -> None:
    old, new, folder = clip(1, 1_000), clip(1, 900), tmp_path / "objects"
    late, staging, authority = Late(str(folder)), Staging(tmp_path / "staging", Limits()), Any
    tell(engine, key, old)
    upload = staging.open(key, len(old.content))
    upload.told_sha256 = old.sha256
    upload.write(old.content)

    def redacted() -> None:
        tell(engine, key, new, old)
        if is_new_up:
            keep(engine, Objects(str(folder)), key, new)

    late.first = redacted
    with pytest.raises(Refused, match="made anew meanwhile"):
        Ingest(engine, late, staging, Threads(2), Limits(), authority)._keep(key, upload)  # type: ignore[arg-type]
    assert staging.find(key) is None and not upload.path.exists()
    if not is_new_up:
        keep(engine, Objects(str(folder)), key, new)
    assert kept(engine, folder, key) == new.content


def test_a_clip_that_comes_while_another_is_told_of_stays_and_the_other_is_refused(engine: Engine, key: Key) -> None:
    """Its row never names the object of one clip and the digest of another."""
    old, new = clip(1, 1_000), clip(1, 900)
    object_key = clip_key(*key, old.sha256)
    tell(engine, key, old)
    arrived = {"vehicles": [key[0]], "outboxes": [key[1]], "sequences": [1], "digests": [old.sha256]}
    with ThreadPoolExecutor(1) as thread:
        with engine.begin() as receiving:
            assert receiving.execute(RECEIVE, {**arrived, "keys": [object_key]}).rowcount == 1
            telling = thread.submit(tell, engine, key, new, old)
            while not (telling.done() or is_waited_for(engine)):
                time.sleep(0.01)
        with pytest.raises(Refused, match="told of before with another bytes") as refusal:
            telling.result()
    assert refusal.value.status is Status.ALREADY_EXISTS
    with engine.connect() as connection:
        row = connection.execute(select(SCENES).where(SCENES.c.outbox == key[1])).one()
    assert (row.bytes, bytes(row.sha256), row.object_key) == (len(old.content), old.sha256, object_key)


def is_waited_for(engine: Engine) -> bool:
    """Whether somebody waits for a row that another transaction changed."""
    with engine.connect() as connection:
        return bool(connection.execute(text("SELECT count(*) FROM pg_locks WHERE NOT granted")).scalar_one())
