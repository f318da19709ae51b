"""A worker whose models run on servers: opinions join the report, and search moves to a new network at the end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, select

from cloud.analyst.network import AnalystNetwork
from cloud.jobs import Queue
from cloud.labels import LABELS
from cloud.objects import Objects
from cloud.tables import ANALYSES, FACTS, JOBS

from .clips import Scene, received
from .model_server import Answer, Asked, of_json, serving
from .test_job import Worker, car, until
from .test_triton import Server


def searched(engine: Engine) -> dict[str, str]:
    with engine.connect() as connection:
        found: dict[str, str] = connection.execute(select(FACTS.c.value).where(FACTS.c.name == "searched")).scalar_one()
    return found


def analyses(engine: Engine, scene_id: int) -> dict[str, Any]:
    with engine.connect() as connection:
        rows = connection.execute(select(ANALYSES).where(ANALYSES.c.scene_id == scene_id))
        return {row.model: row.report for row in rows}


def seer(asked: Asked) -> Answer:
    """Says what it was shown, and one word that is none of ours."""
    content = json.loads(asked.body)["messages"][0]["content"]
    shown = sum(part["type"] == "image_url" for part in content)
    said = {"caption": f"I was shown {shown} pictures.", "labels": ["sound:siren", "aliens"]}
    return of_json({"model": "seer-7b", "choices": [{"message": {"content": json.dumps(said)}}]})


def test_opinions_join_the_report_and_a_new_network_takes_over_when_every_scene_has_its_analysis(
    engine: Engine, database: str, data: Path, scene: Scene
) -> None:
    queue, objects = Queue(engine), Objects(str(data / "objects"))
    first, job = received(engine, objects, scene, car())
    with serving(seer) as (url, asked):
        with Worker(data, database, "--vision-language", url, "--vision-language-model", "seer"):
            assert until(queue, job, "done", "parked").state == "done"
        assert len(asked) == 1 and all(label in asked[0].body.decode() for label in LABELS)
    before = searched(engine)
    ((old, report),) = analyses(engine, first).items()
    opinion = report["opinion"]
    assert (opinion["model"], opinion["labels"], opinion["dropped"]) == ("seer-7b", ["sound:siren"], 1)
    assert opinion["caption"].startswith("I was shown ") and old == before["model"]

    second, job = received(engine, objects, scene, car())
    with serving(Server(AnalystNetwork.open())) as (url, asked):
        with Worker(data, database, "--triton", url):
            assert until(queue, job, "done", "parked").state == "done"
            with engine.connect() as connection:
                again = connection.execute(select(JOBS.c.id).where(JOBS.c.kind == "reembed")).scalar_one()
            moved = until(queue, again, "done", "parked")
        assert any(request.path == "/v2/models/analyst/infer" for request in asked)
    assert moved.state == "done" and moved.result["switched"], moved
    now = searched(engine)
    assert now["space"] == before["space"] and now["model"] != before["model"]
    assert analyses(engine, first).keys() == {before["model"], now["model"]}
    assert analyses(engine, second).keys() == {now["model"]}
    anew = analyses(engine, first)[now["model"]]
    assert anew["opinion"] == opinion, "an opinion outlives the network"
    for label, p in report["labels"].items():
        assert anew["labels"].get(label, 0.0) == pytest.approx(p, abs=1e-3), "the same network, from elsewhere"


def test_a_server_that_fails_costs_the_report_its_opinion_alone(
    engine: Engine, database: str, data: Path, scene: Scene
) -> None:
    queue = Queue(engine)
    scene_id, job = received(engine, Objects(str(data / "objects")), scene, car())
    refusing = serving(lambda _: of_json({"error": "no such model"}, 404))
    with refusing as (url, _), Worker(data, database, "--vision-language", url):
        assert until(queue, job, "done", "parked").state == "done"
    (report,) = analyses(engine, scene_id).values()
    assert "status 404" in report["opinion"]["error"] and "no such model" in report["opinion"]["error"]


def test_a_network_that_does_not_answer_is_waited_for(engine: Engine, database: str, data: Path, scene: Scene) -> None:
    """An analysis without it would be another model's: the job is tried again."""
    queue = Queue(engine)
    scene_id, job = received(engine, Objects(str(data / "objects")), scene, car())
    with Worker(data, database, "--triton", "http://127.0.0.1:1"):
        for told in queue.watch(job, every_s=0.05):
            if told.error:
                break
    assert "expected an answer, got ConnectError" in told.error and told.state in ("queued", "running")
    assert analyses(engine, scene_id) == {}
    with Worker(data, database):
        assert until(queue, job, "done", "parked").state == "done"


def test_misuse_of_the_worker_is_a_line_and_2(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "cloud.worker", "--data", str(tmp_path), "--database", "mysql://x"]
    environment = {**os.environ, "ROADFUSE_HANDS": "3"}
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, env=environment)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "expected a URL postgresql" in done.stderr
