"""A staged bundle's opinion of a scene is judged by the job that analyses the clip."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from sqlalchemy import Engine, select

from cloud.analyst.job import analyse
from cloud.hand import Task
from cloud.jobs import Queue
from cloud.objects import Objects
from cloud.tables import MOMENTS, SCENES, VERDICTS
from roadfuse.v1.ingest_pb2 import SceneSummary

from .clips import Scene, received


def test_an_analysis_judges_the_staged_bundle(engine: Engine, data: Path, scene: Scene, tmp_path: Path) -> None:
    """It tells all weathers at once, of which the analyst is sure that most do not hold."""
    told = SceneSummary.FromString(scene.summary.SerializeToString())
    told.shadow.bundle_id = "b" * 64
    told.shadow.scene_tags.extend(told.scene_tags)
    told.shadow.sound_events.extend(told.sound_events)
    for name in {"snow", "fog", "tunnel"} - {tag.name for tag in told.scene_tags}:
        told.shadow.scene_tags.add(name=name, probability=0.9)
    objects, queue, vehicle = Objects(str(data / "objects")), Queue(engine), f"car-{os.urandom(4).hex()}"
    scene_id, id = received(engine, objects, replace(scene, summary=told), vehicle)
    for _ in range(2):  # as when a worker is killed after it wrote, before it said so
        lease = queue.take(["analyse"])
        assert lease is not None and lease.job.id == id
        task = Task(
            id, str(scene_id), {"scene_id": scene_id}, None, engine, objects, {}, tmp_path, lease.word,
            lambda stage, share, checkpoint: None,
        )  # fmt: skip
        analyse(task)
        lease.fail("killed", retry=False)
        queue.put("analyse", str(scene_id), {"scene_id": scene_id}, again=True)
    with engine.connect() as connection:
        (row,) = connection.execute(select(VERDICTS).where(VERDICTS.c.scene_id == scene_id)).all()
        moments = connection.execute(select(MOMENTS).where(MOMENTS.c.scene_id == scene_id)).all()
        peak_ns = connection.execute(select(SCENES.c.peak_ns).where(SCENES.c.id == scene_id)).scalar_one()
    peak = min(moments, key=lambda moment: abs(moment.instant_ns - peak_ns))
    wrong = {label for label in ("weather:snow", "weather:fog", "place:tunnel") if peak.labels.get(label, 0.0) <= 0.1}
    assert wrong and set(row.worse) == wrong and row.better == []
    assert (row.vehicle, row.active, row.staged) == (vehicle, scene.summary.bundle_id, "b" * 64)
