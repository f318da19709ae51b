"""A new model over all scenes: nothing is searched by it before all of it is there, and then everything at once."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Connection, Engine, delete, func, insert, select, text

from cloud.database import connect, migrate
from cloud.embed import reembed as slices
from cloud.embed.reembed import KIND, Way, ask, reembed, search_by, searched
from cloud.errors import Hopeless, LeaseLost, ModelError
from cloud.hand import Task
from cloud.jobs import Lease, Queue
from cloud.objects import Objects
from cloud.tables import ANALYSES, FACTS, JOBS, MOMENTS, OUTBOXES, SCENES, VECTORS, VEHICLES

OLD, NEW = ("old space", "old model"), ("new space", "new model")


@pytest.fixture(scope="module")
def engine(database: str) -> Iterator[Engine]:
    made = connect(database)
    migrate(made)
    with made.begin() as connection:
        # Every change of what is searched leaves a line, whoever makes it.
        connection.execute(text("CREATE TABLE switches (value jsonb, at timestamptz DEFAULT clock_timestamp())"))
        connection.execute(text(
            "CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            "INSERT INTO switches (value) VALUES (NEW.value); RETURN NEW; END $$"
        ))  # fmt: skip
        connection.execute(
            text("CREATE TRIGGER noted AFTER INSERT OR UPDATE ON facts FOR EACH ROW EXECUTE FUNCTION noted()")
        )
    yield made
    made.dispose()


@pytest.fixture(autouse=True)
def empty(engine: Engine) -> None:
    with engine.begin() as connection:
        for table in (JOBS, FACTS, ANALYSES, SCENES, OUTBOXES, VEHICLES):
            connection.execute(delete(table))
        search_by(connection, *OLD)
        connection.execute(text("DELETE FROM switches"))


def add_scenes(engine: Engine, count: int, clip: Path | None = None, objects: Objects | None = None) -> list[int]:
    """Scenes with clips; ids."""
    digest = hashlib.sha256(clip.read_bytes()).digest() if clip else b""
    with engine.begin() as connection:
        name = f"car-{os.urandom(4).hex()}"
        connection.execute(insert(VEHICLES).values(name=name))
        connection.execute(insert(OUTBOXES).values(vehicle=name, outbox=b"o" * 16, last_sequence=count))
        ids = []
        for sequence in range(1, count + 1):
            key = f"clips/{name}/{sequence}.mcap"
            if clip is not None and objects is not None:
                objects.put(key, clip)
            values: dict[str, Any] = {
                "vehicle": name, "outbox": b"o" * 16, "sequence": sequence, "first_ns": 1, "last_ns": 3, "peak_ns": 2,
                "hardness": 0.5, "scores": {}, "scene_tags": {}, "sound_events": {}, "embedding": b"",
                "embedding_scale": 0.0, "bundle_id": OLD[0], "lane_probability": 0.0, "media": 1, "reason": "",
                "bytes": 1, "sha256": digest, "object_key": key, "received_at": func.now(),
            }  # fmt: skip
            ids.append(connection.execute(insert(SCENES).values(values).returning(SCENES.c.id)).scalar_one())
    return ids


class Writer:
    """Analyses a scene by writing what an analysis has: a report, a moment and a vector."""

    def __init__(self, engine: Engine, before: Callable[[int], None] = lambda scene_id: None) -> None:
        self.space, self.model = NEW
        self.engine, self.before = engine, before
        self.seen: list[int] = []

    def __call__(self, scene_id: int, share: float) -> None:
        assert 0 <= share <= 1
        self.before(scene_id)
        self.seen.append(scene_id)
        key = {"scene_id": scene_id, "model": self.model}
        with self.engine.begin() as connection:
            connection.execute(insert(ANALYSES).values(**key, space=self.space, report={}))
            connection.execute(insert(MOMENTS).values(**key, instant_ns=1, labels={}))
            vector = np.full(192, 9, np.int8).tobytes()
            connection.execute(
                insert(VECTORS).values(
                    **key, instant_ns=1, modality="scene", space=self.space, vector=vector, scale=0.1
                )
            )


def task_of(engine: Engine, lease: Lease, folder: Path) -> Task:
    """What a handler gets, with words that go straight to the queue."""
    job = lease.job
    return Task(
        job.id, job.subject, job.arguments, job.checkpoint, engine, Objects(str(folder)), {}, folder, lease.word,
        lease.progress,
    )  # fmt: skip


def taken(engine: Engine) -> Lease:
    lease = Queue(engine).take([KIND])
    assert lease is not None
    return lease


def switches(engine: Engine) -> list[tuple[str, str]]:
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT value FROM switches ORDER BY at")).scalars()
        return [(value["space"], value["model"]) for value in rows]


def now_searched(engine: Engine) -> tuple[str, str] | None:
    with engine.connect() as connection:
        return searched(connection)


def test_search_moves_once_when_the_last_scene_is_there(engine: Engine, tmp_path: Path) -> None:
    ids = add_scenes(engine, 5)

    def still_old(scene_id: int) -> None:
        assert now_searched(engine) == OLD

    writer = Writer(engine, still_old)
    ask(Queue(engine), *NEW)
    result = reembed(task_of(engine, taken(engine), tmp_path), writer)
    assert result == {"scenes": 5, "skipped": [], "switched": True} and writer.seen == ids
    assert now_searched(engine) == NEW and switches(engine) == [NEW]


def test_asked_again_it_changes_nothing_but_what_is_new(engine: Engine, tmp_path: Path) -> None:
    add_scenes(engine, 2)
    queue, writer = Queue(engine), Writer(engine)
    for _ in range(2):
        ask(queue, *NEW)
        lease = taken(engine)
        lease.done(reembed(task_of(engine, lease, tmp_path), writer))
    assert len(writer.seen) == 2 and switches(engine) == [NEW]
    late = add_scenes(engine, 1)
    ask(queue, *NEW)
    reembed(task_of(engine, taken(engine), tmp_path), writer)
    assert writer.seen[2:] == late and switches(engine) == [NEW]


def test_slices_follow_each_other_behind_fresh_clips(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = add_scenes(engine, 5)
    queue = Queue(engine)
    monkeypatch.setattr(slices, "SLICE_S", 0.02)
    writer = Writer(engine, lambda scene_id: time.sleep(0.015))
    ask(queue, *NEW)
    queue.put("analyse", "7", {"scene_id": 7})
    results = []
    first = queue.take([KIND, "analyse"])
    assert first is not None and first.job.kind == "analyse"
    first.done()
    while (lease := queue.take([KIND])) is not None:
        results.append(reembed(task_of(engine, lease, tmp_path), writer))
        lease.done(results[-1])
        assert len(results) < 20
    assert writer.seen == ids and len(results) >= 3
    assert [result["switched"] for result in results] == [False] * (len(results) - 1) + [True]
    assert results[-1]["scenes"] == 5 and switches(engine) == [NEW]


def test_it_goes_on_from_its_checkpoint_and_does_no_scene_twice(engine: Engine, tmp_path: Path) -> None:
    ids = add_scenes(engine, 6)
    ask(Queue(engine), *NEW)

    def dies(scene_id: int) -> None:
        if scene_id == ids[3]:
            raise MemoryError

    first = Writer(engine, dies)
    lease = taken(engine)
    with pytest.raises(MemoryError):
        reembed(task_of(engine, lease, tmp_path), first)
    lease.hand_back()
    again = taken(engine)
    assert Way.of(again.job.checkpoint) == Way(0, ids[2], 3, ())
    assert 0.4 < again.job.progress < 0.6 and again.job.stage == "3 of 6 scenes"
    second = Writer(engine)
    assert reembed(task_of(engine, again, tmp_path), second)["scenes"] == 6
    assert first.seen == ids[:3] and second.seen == ids[3:] and switches(engine) == [NEW]


def test_a_clip_that_comes_in_meanwhile_is_waited_for(engine: Engine, tmp_path: Path) -> None:
    ids = add_scenes(engine, 3)
    late: list[int] = []

    def arrive(scene_id: int) -> None:
        if scene_id == ids[2] and not late:
            with engine.begin() as connection:  # one that was told of long before: its id lies behind
                connection.execute(delete(ANALYSES).where(ANALYSES.c.scene_id == ids[0]))
            late.extend(add_scenes(engine, 1))
        assert now_searched(engine) == OLD

    writer = Writer(engine, arrive)
    ask(Queue(engine), *NEW)
    assert reembed(task_of(engine, taken(engine), tmp_path), writer)["switched"]
    assert sorted(writer.seen) == sorted([*ids, *late, ids[0]]) and now_searched(engine) == NEW


def test_a_clip_that_comes_in_at_the_last_instant_is_waited_for(engine: Engine, tmp_path: Path) -> None:
    add_scenes(engine, 1)
    late: list[int] = []

    class Late(Task):
        """Search is about to move when one more clip comes in."""

        def hold(self, connection: Connection) -> None:
            if not late:
                late.extend(add_scenes(engine, 1))
            super().hold(connection)

    ask(Queue(engine), *NEW)
    given = task_of(engine, taken(engine), tmp_path)
    writer = Writer(engine)
    assert reembed(Late(**{name: getattr(given, name) for name in given.__slots__}), writer)["switched"]
    assert writer.seen[1:] == late and switches(engine) == [NEW]


def test_a_clip_that_cannot_be_analysed_holds_nobody_up(engine: Engine, tmp_path: Path) -> None:
    ids = add_scenes(engine, 4)

    def refuse(scene_id: int) -> None:
        if scene_id == ids[1]:
            raise Hopeless("the clip can't be analysed: expected a drive, got none")

    ask(Queue(engine), *NEW)
    result = reembed(task_of(engine, taken(engine), tmp_path), Writer(engine, refuse))
    assert result == {"scenes": 3, "skipped": [ids[1]], "switched": True}


def test_where_most_clips_fail_search_stays_where_it_is(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_scenes(engine, 4)
    monkeypatch.setattr(slices, "MOST_SKIPPED", 2)

    def refuse(scene_id: int) -> None:
        raise Hopeless("no")

    ask(Queue(engine), *NEW)
    with pytest.raises(Hopeless, match="at most 2 clips"):
        reembed(task_of(engine, taken(engine), tmp_path), Writer(engine, refuse))
    assert now_searched(engine) == OLD and not switches(engine)


def test_a_worker_of_another_model_leaves_the_job_alone(engine: Engine, tmp_path: Path) -> None:
    add_scenes(engine, 1)
    ask(Queue(engine), "another space", "another model")
    writer = Writer(engine)
    with pytest.raises(ModelError, match="expected a worker with model another model, got one with new model"):
        reembed(task_of(engine, taken(engine), tmp_path), writer)
    assert not writer.seen and now_searched(engine) == OLD


def test_who_lost_the_lease_moves_nothing(engine: Engine, tmp_path: Path) -> None:
    add_scenes(engine, 1)
    queue = Queue(engine)
    ask(queue, *NEW)
    lease = taken(engine)
    task = replace(task_of(engine, lease, tmp_path), say=lambda *said: None)
    writer = Writer(engine, lambda scene_id: queue.cancel(lease.job.id) and None)  # type: ignore[arg-type]
    with pytest.raises(LeaseLost):
        reembed(task, writer)
    assert now_searched(engine) == OLD and not switches(engine)


def test_without_scenes_search_moves_at_once(engine: Engine, tmp_path: Path) -> None:
    ask(Queue(engine), *NEW)
    assert reembed(task_of(engine, taken(engine), tmp_path), Writer(engine))["switched"]
    assert now_searched(engine) == NEW


def test_a_killed_worker_costs_nothing_twice_with_the_real_analyst(
    engine: Engine, database: str, tmp_path: Path, clip_path: Path
) -> None:
    """Real clips and models; the worker and its hand are killed in the middle, another one goes on."""
    from cloud.analyst.analyst import Analyst

    analyst = Analyst.open()
    objects = Objects(str(tmp_path / "objects"))
    ids = add_scenes(engine, 3, clip_path, objects)
    queue = Queue(engine)
    job = ask(queue, analyst.space, analyst.model)

    def worker() -> subprocess.Popen[str]:
        argv = ["-m", "cloud.worker", "--data", tmp_path, "--database", database, "--objects", tmp_path / "objects"]
        return subprocess.Popen(
            [sys.executable, *map(str, argv), "--lease-s", "2"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def made() -> dict[int, Any]:
        query = select(ANALYSES.c.scene_id, ANALYSES.c.made_at).where(ANALYSES.c.model == analyst.model)
        with engine.connect() as connection:
            return {row.scene_id: row.made_at for row in connection.execute(query)}

    first = worker()
    try:
        await_(lambda: 1 <= len(made()) < 3, first)
    finally:
        first.send_signal(signal.SIGKILL)
        first.communicate()
    before = made()
    assert now_searched(engine) == OLD and not switches(engine)
    second = worker()
    try:
        await_(lambda: queue.job(job).state == "done", second)
    finally:
        second.terminate()
        second.communicate(timeout=30)
    after = made()
    assert sorted(after) == ids
    # What had a row and was past the checkpoint's scene was not done again: at most the one in hand was.
    assert sum(before[scene] != after[scene] for scene in before) <= 1
    assert switches(engine) == [(analyst.space, analyst.model)] and queue.job(job).result["skipped"] == []
    with engine.connect() as connection:
        spaces = connection.execute(select(VECTORS.c.space).where(VECTORS.c.model == analyst.model).distinct())
        assert spaces.scalars().all() == [analyst.space]


def await_(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Until it holds, while the process lives."""
    for _ in range(1200):
        if condition():
            return
        if process.poll() is not None:
            raise AssertionError(process.communicate()[1][-2000:])
        time.sleep(0.05)
    raise AssertionError("it did not come to be within a minute")
