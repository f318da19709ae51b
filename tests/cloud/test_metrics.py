"""What /metrics says of a running server, and alerts that speak of nothing else."""

from __future__ import annotations

import importlib
import json
import math
import re
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import Engine, text

from cloud import certificates, metrics
from cloud.database import connect
from cloud.jobs import Queue
from cloud.survey import NAMED, OTHERS, Survey

from .fleet import CHUNK_BYTES, Cloud, Status, chunks, clip, refused, summary

PROMETHEUS = Path(__file__).parents[2] / "deploy" / "prometheus"
NAME = re.compile(r"\broadfuse_[a-z0-9_]+")


def scraped(cloud: Cloud) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    (group,) = json.loads((cloud.data / "metrics.json").read_text())
    assert group["labels"] == {"part": "ingest"}
    with urllib.request.urlopen(f"http://{group['targets'][0]}/metrics", timeout=10) as answer:
        said = answer.read().decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(said)
        for sample in family.samples
    }


def value(cloud: Cloud, name: str, /, **labels: str) -> float:
    return scraped(cloud).get((name, tuple(sorted(labels.items()))), 0.0)


def test_calls_are_timed_by_method_and_status(cloud: Cloud) -> None:
    vehicle, one = cloud.vehicle(), clip(1, 300_000)
    before = value(cloud, "roadfuse_call_seconds_count", method="Ingest/Complete", status="OK")
    vehicle.report(summary(1, one))
    vehicle.upload(one)
    with refused(Status.NOT_FOUND):
        vehicle.begin(clip(2, 1))
    found = scraped(cloud)
    assert found["roadfuse_call_seconds_count", (("method", "Ingest/Complete"), ("status", "OK"))] == before + 1
    assert found["roadfuse_call_seconds_count", (("method", "Ingest/Begin"), ("status", "NOT_FOUND"))] >= 1
    assert found["roadfuse_call_seconds_count", (("method", "Ingest/Append"), ("status", "OK"))] >= 1
    bounds = {dict(labels)["le"] for name, labels in found if name == "roadfuse_call_seconds_bucket"}
    assert {"0.05", "2.0", "+Inf"} <= bounds


def here(name: str, /, **labels: str) -> float:
    """Of this process's own survey."""
    return REGISTRY.get_sample_value(name, labels) or 0.0


@pytest.fixture
def engine(cloud: Cloud) -> Iterator[Engine]:
    assert cloud.database is not None
    engine = connect(cloud.database)
    yield engine
    engine.dispose()


def test_a_scene_is_observed_once_at_each_stage(cloud: Cloud, engine: Engine) -> None:
    def counts() -> list[float]:
        stages = [here("roadfuse_lag_seconds_count", stage=stage) for stage in ("told", "received")]
        return [*stages, here("roadfuse_told_misaligned_count")]

    survey = Survey(engine)
    survey.look()
    before = counts()
    vehicle, one = cloud.vehicle(), clip(1, 1_000)
    message = summary(1, one)
    message.scores.add(name="misaligned", value=0.75, weight=0.4)
    vehicle.report(message)
    survey.look()
    assert counts() == [before[0] + 1, before[1], before[2] + 1]
    vehicle.upload(one)
    with engine.begin() as connection:
        connection.execute(text("UPDATE scenes SET wanted = true WHERE vehicle = :name"), {"name": vehicle.name})
    for _ in range(3):
        survey.look()
        assert counts() == [before[0] + 1, before[1] + 1, before[2] + 1]


def test_what_happened_long_ago_is_not_observed(cloud: Cloud, engine: Engine) -> None:
    vehicle = cloud.vehicle()
    survey = Survey(engine)
    survey.look()
    vehicle.report(summary(1))
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE scenes SET told_at = now() - interval '1 hour' WHERE vehicle = :name"), {"name": vehicle.name}
        )
    before = here("roadfuse_lag_seconds_count", stage="told")
    survey.look()
    assert here("roadfuse_lag_seconds_count", stage="told") == before


def test_what_waits_is_measured(cloud: Cloud, engine: Engine) -> None:
    survey = Survey(engine)
    Queue(engine).put("knit", "a", {})
    survey.look()
    assert here("roadfuse_queue_jobs", kind="knit", state="queued") == 1
    assert here("roadfuse_queue_oldest_seconds", kind="knit") > 0
    with engine.begin() as connection:
        connection.execute(text("UPDATE jobs SET state = 'parked' WHERE kind = 'knit'"))
    Survey(engine).look()
    survey.look()
    assert here("roadfuse_queue_jobs", kind="knit", state="parked") == 1
    assert here("roadfuse_queue_jobs", kind="knit", state="queued") == 0


def test_clips_on_their_way_are_measured(cloud: Cloud) -> None:
    vehicle, one = cloud.vehicle(), clip(1, 300_000)
    vehicle.report(summary(1, one))
    vehicle.begin(one)
    before = value(cloud, "roadfuse_staging_bytes"), value(cloud, "roadfuse_staging_clips")
    vehicle.append([next(chunks(vehicle.outbox, one))])
    assert value(cloud, "roadfuse_staging_bytes") == before[0] + CHUNK_BYTES
    vehicle.upload(one)
    assert value(cloud, "roadfuse_staging_clips") == before[1] - 1


def test_the_disk_and_the_certificates_are_watched(cloud: Cloud) -> None:
    disk = shutil.disk_usage(cloud.data)
    assert value(cloud, "roadfuse_disk_bytes") == disk.total
    assert 0 < value(cloud, "roadfuse_disk_free_bytes") < disk.total
    for name, days in (("server", 397), ("ca", 3650)):
        left_s = value(cloud, "roadfuse_certificate_expires_timestamp_seconds", name=name) - time.time()
        assert (days - 1) * 86_400 < left_s <= days * 86_400


def test_certificates_of_the_broker_are_watched_where_there_are_any(cloud: Cloud) -> None:
    name = "roadfuse_certificate_expires_timestamp_seconds"
    assert all(math.isnan(value(cloud, name, name=of)) for of in ("broker", "cloud")), "an alert compares no NaN"
    certificates.issue_broker(cloud.data / "ca", ["localhost"])
    assert all(value(cloud, name, name=of) > time.time() + 396 * 86_400 for of in ("broker", "cloud"))


def test_missing_scenes_are_counted_and_few_vehicles_named(cloud: Cloud, engine: Engine) -> None:
    fleet = [cloud.vehicle() for _ in range(NAMED + 3)]
    for number, vehicle in enumerate(fleet, 1):
        vehicle.report(last=number)
    Survey(engine).look()
    (family,) = metrics.MISSING.collect()
    named = {sample.labels["vehicle"]: sample.value for sample in family.samples}
    assert len(named) == NAMED + 1 and named[OTHERS] == 1 + 2 + 3
    assert named[fleet[-1].name] == NAMED + 3
    assert here("roadfuse_scenes", state="missing") == sum(range(NAMED + 4))


def test_alerts_speak_only_of_what_is_measured(cloud: Cloud) -> None:
    for part in ("cloud.parts", "cloud.search.metrics", "cloud.embed.metrics"):
        importlib.import_module(part)
    cloud.vehicle().report(last=0)
    known = {name for name, _ in scraped(cloud)}
    for family in REGISTRY.collect():
        known |= {family.name, *(family.name + end for end in ("_total", "_bucket", "_count", "_sum"))}
    used = set(NAME.findall((PROMETHEUS / "alerts.yml").read_text()))
    assert len(used) > 10 and used <= known, f"not measured: {sorted(used - known)}"


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool (apt-get install prometheus)")
@pytest.mark.parametrize(
    "words",
    [
        ("check", "rules", "alerts.yml"),
        ("test", "rules", "alerts_test.yml", "alerts_slow_test.yml"),
        ("check", "config", "--syntax-only", "prometheus.yml"),
    ],
)
def test_promtool_agrees(words: tuple[str, ...]) -> None:
    done = subprocess.run(["promtool", *words], cwd=PROMETHEUS, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
