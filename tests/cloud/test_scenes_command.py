"""`roadfuse scenes` against a real catalogue, as a person or a script calls it."""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine, insert

from cloud.analyst import store
from cloud.analyst.analyst import View
from cloud.analyst.clip import Replayed, Told
from cloud.analyst.report import report
from cloud.catalogue import Catalogue
from cloud.database import connect, migrate
from cloud.errors import CloudError
from cloud.jobs import Queue
from cloud.limits import Limits
from cloud.objects import Objects, clip_key
from cloud.report import checked
from cloud.scenes_command import main
from cloud.tables import VEHICLES
from edge.decision import Alignment
from export.model.analyst_outputs import BOXES
from roadfuse.v1 import ingest_pb2

from .fleet import Clip, clip, command, summary

MODEL, SPACE = "m" * 64, "b" * 64


@pytest.fixture(scope="module")
def engine(database: str) -> Iterator[Engine]:
    made = connect(database)
    migrate(made)
    yield made
    made.dispose()


@pytest.fixture(scope="module")
def fleet(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, int], Clip]:
    """car-1: a clip that is here and analysed (night, siren), one on board, one evicted; car-2: one on board."""
    data = tmp_path_factory.mktemp("data")
    catalogue, objects, one = Catalogue(engine, Limits()), Objects(str(data / "objects")), clip(1, 5_000)
    path = data / "one.mcap"
    path.write_bytes(one.content)
    outbox = os.urandom(16)
    with engine.begin() as connection:
        connection.execute(insert(VEHICLES), [{"name": "car-1"}, {"name": "car-2"}])
    rain = summary(2, clip(2, 10))
    rain.scene_tags.add(name="rain", probability=0.8)
    for vehicle, scenes in (
        ("car-1", [summary(1, one), rain, summary(3)]),
        ("car-2", [summary(1, clip(1, 10), hardness=0.95)]),
    ):
        request = ingest_pb2.ReportRequest(outbox=outbox, last_sequence=len(scenes), scenes=scenes)
        catalogue.report(vehicle, checked(request, Limits()))
    key = clip_key("car-1", outbox, 1, one.sha256)
    objects.put(key, path)
    catalogue.receive("car-1", outbox, 1, one.sha256, key)
    ids = {}
    for row in listed(engine, data):
        ids[f"{row['vehicle']}/{row['sequence']}"] = row["id"]
    with engine.begin() as connection:
        analyse(connection, ids["car-1/1"])
    return data, ids, one


def analyse(connection: Any, scene_id: int) -> None:
    """An analysis of four moments in which a siren begins."""
    stamps = [1_000 + i * 250_000_000 for i in range(4)]
    labels = [{"light:night": 0.99, "sound:siren": p, "place:urban": 0.98} for p in (0.01, 0.2, 0.9, 0.97)]
    told = [Told(stamp_ns, 0.5, {"sound:siren": 0.1}, Alignment(), {}) for stamp_ns in stamps]
    vectors = np.eye(192, dtype=np.float32)[:4]
    seen = Replayed(
        5_000, stamps, np.stack([vectors] * 4, 1), np.ones((4, 4), np.bool_), np.zeros((4, *BOXES), np.float32),
        vectors, labels, [{}] * 4, told, told, SPACE,
    )  # fmt: skip
    view = View(labels, vectors, vectors, {})
    store.write(connection, scene_id, MODEL, SPACE, seen, view, report(seen, view, 2_000, {"bundle": SPACE}, None))


def listed(engine: Engine, data: Path, *words: str) -> list[dict[str, Any]]:
    return json.loads(said(engine, data, "list", "--json", *words))


def said(engine: Engine, data: Path, *words: str) -> str:
    """What the command prints."""
    name, *rest = words
    url = engine.url.render_as_string(hide_password=False)
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert main([name, "--data", str(data), "--database", url, *rest]) == 0
    return out.getvalue()


Fleet = tuple[Path, dict[str, int], Clip]


def test_scenes_are_listed_newest_first_and_filtered(engine: Engine, fleet: Fleet) -> None:
    data, ids, _ = fleet

    def found(*words: str) -> set[int]:
        return {row["id"] for row in listed(engine, data, *words)}

    assert [row["id"] for row in listed(engine, data)] == sorted(ids.values(), reverse=True)
    assert found("--vehicle", "car-2") == {ids["car-2/1"]}
    assert found("--state", "here") == {ids["car-1/1"]} and found("--state", "evicted") == {ids["car-1/3"]}
    assert found("--state", "held") == {ids["car-1/2"], ids["car-2/1"]}
    assert found("--label", "weather:rain") == {ids["car-1/2"]}
    assert found("--label", "sound:siren") == {ids["car-1/1"]}, "seen by the analyst alone"
    assert found("--label", "light:night") == set(ids.values())
    assert found("--since", "2025-10-10") == set() and found("--since", "2025-10-09") == set(ids.values())
    assert found("--until", "2025-10-09T10:53:21+02:00") == set(ids.values())
    assert found("--until", "2025-10-09T10:53:20+02:00") == set()
    assert found("--since", "2030-01-01T12:00+02:00") == set()
    assert len(listed(engine, data, "--limit", "2")) == 2
    text = said(engine, data, "list").splitlines()
    assert len(text) == len(ids) and "car-1" in text[-1] and "siren" not in text[0]


def test_a_scene_is_shown_with_its_report(engine: Engine, fleet: Fleet) -> None:
    data, ids, _ = fleet
    shown = json.loads(said(engine, data, "show", str(ids["car-1/1"]), "--json"))
    assert shown["where"] == "here" and shown["analysis"]["model"] == MODEL
    assert shown["report"]["agreement"]["differences"][0]["label"] == "sound:siren"
    text = said(engine, data, "show", str(ids["car-1/1"]), "--language", "de")
    assert "sound:siren" in text and "in der nacht" in text.lower() and "did not say sound:siren" in text
    assert "none yet" in said(engine, data, "show", str(ids["car-1/2"]))


def test_a_clip_on_board_can_be_asked_for_and_one_that_is_gone_can_not(engine: Engine, fleet: Fleet) -> None:
    data, ids, _ = fleet
    assert "asked for" in said(engine, data, "want", str(ids["car-2/1"]))
    assert {row["id"] for row in listed(engine, data, "--state", "wanted")} == {ids["car-2/1"]}
    assert "its clip is here" in said(engine, data, "want", str(ids["car-1/1"]))
    with pytest.raises(CloudError, match="expected one whose clip is on board, got one that is evicted"):
        said(engine, data, "want", str(ids["car-1/3"]))


def test_the_clip_and_its_subtitles_come_out_as_files(engine: Engine, fleet: Fleet, tmp_path: Path) -> None:
    data, ids, one = fleet
    number, out = str(ids["car-1/1"]), tmp_path / "out.mcap"
    said(engine, data, "clip", number, "--out", str(out))
    assert out.read_bytes() == one.content
    with pytest.raises(CloudError, match="expected the name of a new file"):
        said(engine, data, "clip", number, "--out", str(out))
    with pytest.raises(CloudError, match="expected one whose clip is here"):
        said(engine, data, "clip", str(ids["car-1/2"]), "--out", str(tmp_path / "other"))
    with pytest.raises(CloudError, match="expected a folder with objects, got none"):
        said(engine, data, "clip", number, "--out", str(tmp_path / "new"), "--objects", str(tmp_path / "typo" / "objs"))
    assert not (tmp_path / "typo").exists()
    track = said(engine, data, "subtitles", number, "--language", "fr")
    assert track.startswith("WEBVTT\n") and "[sirène]" in track
    said(engine, data, "subtitles", number, "--out", str(tmp_path / "x.vtt"))
    assert "[siren]" in (tmp_path / "x.vtt").read_text()
    with pytest.raises(CloudError, match="expected an analysis, got none yet"):
        said(engine, data, "subtitles", str(ids["car-1/2"]))
    with pytest.raises(CloudError, match=f"expected an analysis, got {MODEL}"):
        said(engine, data, "subtitles", number, "--model", "other")


def test_a_vehicles_scenes_are_summed_up(engine: Engine, fleet: Fleet) -> None:
    data, _, _ = fleet
    found = json.loads(said(engine, data, "summary", "car-1", "--json"))
    assert (found["scenes"], found["analysed"], found["events"]) == (3, 1, {"sound:siren": 1})
    assert found["errors"] == {"sound:siren": 1} and found["labels"]["light:night"] == 1
    assert "3 hard scenes" in found["sentence"]["en"] and "Sirene (1)" in found["sentence"]["de"]
    assert "no events" in said(engine, data, "summary", "car-2")


def test_jobs_are_listed_cancelled_retried_and_watched(engine: Engine, fleet: Fleet) -> None:
    data, ids, _ = fleet
    (job,) = json.loads(said(engine, data, "jobs", "--json"))["jobs"]
    assert (job["kind"], job["subject"], job["state"]) == ("analyse", str(ids["car-1/1"]), "queued")
    number = str(job["id"])
    assert "cancelled" in said(engine, data, "jobs", "--cancel", number)
    assert "ended already" in said(engine, data, "jobs", "--cancel", number)
    assert "queued again" in said(engine, data, "jobs", "--retry", number)
    lease = Queue(engine).take(["analyse"])
    assert lease is not None
    lease.fail("the clip is damaged", retry=False)
    assert "1 parked" in said(engine, data, "jobs") and "the clip is damaged" in said(engine, data, "jobs")
    assert "parked" in said(engine, data, "jobs", "--watch", number), "one that has ended is told once"
    with pytest.raises(CloudError, match="expected the number of a job, got 999"):
        said(engine, data, "jobs", "--cancel", "999")


@pytest.mark.parametrize(
    "words",
    [
        ["show", "x"],
        ["show", "-1"],
        ["list", "--since", "yesterday"],
        ["list", "--state", "nowhere"],
        ["jobs", "--watch", "--cancel", "1"],
        ["subtitles", "1", "--language", "xx"],
        [],
    ],
)
def test_misuse_exits_with_2(tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*words, "--data", str(tmp_path)] if words else [])
    assert ended.value.code == 2 and "Traceback" not in capsys.readouterr().err


def test_a_number_that_is_no_scene_is_a_line_and_2(engine: Engine, fleet: Fleet) -> None:
    url = engine.url.render_as_string(hide_password=False)
    done = command("scenes", "show", 999999, "--data", fleet[0], "--database", url, check=False)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "expected the number of a scene" in done.stderr
