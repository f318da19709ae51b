"""A scene's clip from the store through a worker's process into the catalogue."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine, delete, func, select

from cloud.analyst.subtitles import subtitles
from cloud.jobs import Job, Queue
from cloud.objects import Objects
from cloud.tables import ANALYSES, FACTS, JOBS, MOMENTS, SCENES, VECTORS

from .clips import Scene, received

REPOSITORY = Path(__file__).parents[3]


class Worker:
    """`python -m cloud.worker`, as an operator would run it."""

    def __init__(self, data: Path, database: str, *words: str) -> None:
        argv = [sys.executable, "-m", "cloud.worker", "--data", str(data), "--database", database, *words]
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY)
        assert self.process.stdout is not None and self.process.stdout.readline() == "worker 1\n"

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=60)


def until(queue: Queue, id: int, *states: str) -> Job:
    end = time.monotonic() + 120
    while (job := queue.job(id)).state not in states:
        assert time.monotonic() < end, f"expected {states}, got {job}"
        time.sleep(0.1)
    return job


def rows(engine: Engine, table: Any, scene_id: int) -> list[Any]:
    with engine.connect() as connection:
        return list(connection.execute(select(table).where(table.c.scene_id == scene_id)))


def car() -> str:
    return f"car-{os.urandom(4).hex()}"


@pytest.fixture(scope="module")
def analysed(engine: Engine, database: str, data: Path, scene: Scene) -> tuple[int, Job]:
    """The scene's id and its job, after two workers of which the first was killed in the middle."""
    queue = Queue(engine)
    scene_id, id = received(engine, Objects(str(data / "objects")), scene, car())
    first = Worker(data, database, "--lease-s", "2")
    assert any(job.stage == "replaying" and job.progress > 0.2 for job in queue.watch(id, every_s=0.02))
    first.kill()
    assert rows(engine, ANALYSES, scene_id) == []
    with Worker(data, database, "--lease-s", "2"):
        job = until(queue, id, "done", "parked")
    return scene_id, job


def test_a_killed_workers_scene_is_analysed_once_by_the_next(engine: Engine, analysed: tuple[int, Job]) -> None:
    scene_id, job = analysed
    assert (job.state, job.attempts) == ("done", 2), job
    (analysis,) = rows(engine, ANALYSES, scene_id)
    assert analysis.model == job.result["model"] and len(rows(engine, MOMENTS, scene_id)) == job.result["moments"]
    assert len(rows(engine, VECTORS, scene_id)) == job.result["vectors"]
    with engine.connect() as connection:
        searched = connection.execute(select(FACTS.c.value).where(FACTS.c.name == "searched")).scalar_one()
    assert searched == {"space": analysis.space, "model": analysis.model}


def test_moments_are_four_a_second_with_vectors_of_each_modality(
    engine: Engine, analysed: tuple[int, Job], scene: Scene
) -> None:
    moments = rows(engine, MOMENTS, analysed[0])
    steps = np.diff(sorted(row.instant_ns for row in moments)) / 1e9
    assert len(moments) == 16 and np.allclose(steps, 0.25, atol=0.03)
    assert all(0.01 <= p <= 1.0 for row in moments for p in row.labels.values())
    found: dict[str, int] = {}
    for row in rows(engine, VECTORS, analysed[0]):
        found[row.modality] = found.get(row.modality, 0) + 1
        values = np.frombuffer(row.vector, np.int8).astype(np.float32) * row.scale
        assert values.shape == (192,) and abs(np.linalg.norm(values) - 1.0) < 0.02
        assert row.space == scene.summary.bundle_id
    assert found.keys() == {"scene", "image", "audio", "motion", "lidar", "video"}
    assert found["scene"] == found["image"] == len(moments)


def test_the_bundles_own_view_at_the_peak_is_what_the_vehicle_told(
    engine: Engine, analysed: tuple[int, Job], scene: Scene
) -> None:
    """The replay starts at the clip's start, not at the drive's, and still comes to the same labels."""
    report = rows(engine, ANALYSES, analysed[0])[0].report
    told = {tag.name for tag in scene.summary.sound_events}
    for name in told:
        assert report["labels"][f"sound:{name}"] > 0.5
    assert report["agreement"]["bundle"] == scene.summary.bundle_id
    assert report["agreement"]["agreed"] > 0.9
    assert report["agreement"]["hardness"]["edge_peak"] == pytest.approx(scene.summary.hardness, abs=0.05)


def test_the_report_has_evidence_for_what_it_says(engine: Engine, analysed: tuple[int, Job]) -> None:
    report = rows(engine, ANALYSES, analysed[0])[0].report
    instants = {str(row.instant_ns): row.labels for row in rows(engine, MOMENTS, analysed[0])}
    assert report["evidence"]
    for entry in report["evidence"]:
        assert instants[entry["instant_ns"]][entry["label"]] == pytest.approx(entry["probability"], abs=1e-3)
    for event in report["events"]:
        assert 0.0 <= event["onset_s"] <= event["at_s"] <= event["end_s"] + 1e-9 <= report["clip"]["length_s"] + 1e-9
    assert set(report["caption"]) >= {"en", "de", "es", "fr", "instant_ns", "at_s"}
    assert report["health"]["by"] == "edge" and 0.0 <= report["health"]["agreement_least"] <= 1.0


def test_an_analysis_again_changes_nothing(
    engine: Engine, database: str, data: Path, analysed: tuple[int, Job]
) -> None:
    scene_id, job = analysed
    before = [sorted(map(repr, rows(engine, table, scene_id))) for table in (MOMENTS, VECTORS)]
    report = rows(engine, ANALYSES, scene_id)[0].report
    queue = Queue(engine)
    assert queue.put("analyse", str(scene_id), {"scene_id": scene_id}, again=True) == job.id
    with Worker(data, database):
        assert until(queue, job.id, "done").result == job.result
    assert [sorted(map(repr, rows(engine, table, scene_id))) for table in (MOMENTS, VECTORS)] == before
    assert rows(engine, ANALYSES, scene_id)[0].report == report


def test_the_subtitles_of_an_analysis_are_a_track(engine: Engine, analysed: tuple[int, Job]) -> None:
    report = rows(engine, ANALYSES, analysed[0])[0].report
    first_ns = int(report["clip"]["first_ns"])
    moments = sorted((row.instant_ns, row.labels) for row in rows(engine, MOMENTS, analysed[0]))
    told = [((instant_ns - first_ns) / 1e9, labels) for instant_ns, labels in moments]
    track = subtitles(told, report["events"], report["clip"]["length_s"], "en")
    assert track.startswith("WEBVTT\n") and track.count(" --> ") >= 1


def test_clips_that_are_none_are_parked_with_a_reason_and_the_next_is_analysed(
    engine: Engine, database: str, data: Path, scene: Scene, tmp_path: Path
) -> None:
    """Cut short, no drive, and not what was told of: whoever sent it hears why, and nothing else suffers."""
    queue, objects = Queue(engine), Objects(str(data / "objects"))
    whole = scene.clip.read_bytes()
    contents = {"noise": os.urandom(5_000), "cut": whole[: len(whole) // 2], "empty": b"", "altered": whole[:-1] + b"x"}
    ids = {}
    for name, content in contents.items():
        path = tmp_path / f"{name}.mcap"
        path.write_bytes(content)
        summary = type(scene.summary)()
        summary.CopyFrom(scene.summary)
        if name != "altered":
            summary.sha256, summary.bytes = hashlib.sha256(content).digest(), len(content)
        ids[name] = received(engine, objects, Scene(path, summary), car())[1]
    with Worker(data, database):
        jobs = {name: until(queue, id, "done", "parked") for name, id in ids.items()}
    assert {name: (job.state, job.attempts) for name, job in jobs.items()} == dict.fromkeys(ids, ("parked", 1))
    assert "expected an MCAP file" in jobs["noise"].error and "roadfuse-job" not in jobs["noise"].error
    assert "damaged at byte" in jobs["cut"].error
    assert "an empty file" in jobs["empty"].error
    assert "not the one that was told of" in jobs["altered"].error
    assert all("\n" not in job.error and len(job.error) < 300 for job in jobs.values())


def test_a_job_of_no_scene_is_parked(engine: Engine, database: str, data: Path) -> None:
    queue = Queue(engine)
    ids = [queue.put("analyse", "none", {"scene_id": 10**9}), queue.put("analyse", "odd", {"scene_id": "x"})]
    with Worker(data, database):
        errors = [until(queue, id, "parked").error for id in ids]
    assert errors[0] == "expected a scene whose clip is here, got 1000000000" and "number of a scene" in errors[1]
    with engine.begin() as connection:
        connection.execute(delete(JOBS).where(JOBS.c.id.in_(ids)))
        assert connection.execute(select(func.count()).select_from(SCENES)).scalar_one() >= 1
