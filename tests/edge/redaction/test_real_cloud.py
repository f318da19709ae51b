"""The command, a spool with a recorded clip, and a real cloud: what it keeps is redacted."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.uplink.outbox import Outbox, Quota
from roadfuse.v1.ingest_pb2 import SceneSummary
from tests.cloud.test_way_up import Cloud, enrolled, objects, roadfuse

from .conftest import Redacted


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    folder = Path(tempfile.mkdtemp(prefix="roadfuse-redaction-", dir="/tmp"))  # PostgreSQL must reach it as nobody
    folder.chmod(0o755)
    cloud = Cloud(folder / "data")
    yield cloud
    cloud.process.terminate()
    cloud.process.wait(timeout=60)
    shutil.rmtree(folder, ignore_errors=True)


def test_what_a_cloud_was_told_of_as_recorded_arrives_redacted(
    redacted: Redacted, cloud: Cloud, tmp_path: Path
) -> None:
    identity, spool = enrolled(cloud, tmp_path, "car-1"), tmp_path / "spool"
    recorded = redacted.source.read_bytes()
    with Outbox(spool, Quota(1 << 40, 0)) as outbox:
        sequence, _ = outbox.give(SceneSummary(first_ns=7, last_ns=9, peak_ns=8, hardness=0.5), 1.0)
        outbox.path(sequence).write_bytes(recorded)
        outbox.hold(sequence, hashlib.sha256(recorded).digest(), len(recorded))
    place = ("--spool", spool, "--cloud", f"localhost:{cloud.port}", "--identity", identity, "--once")
    roadfuse("uplink", "run", *place)  # tells of it; without a detector of real faces no clip goes
    assert json.loads(roadfuse("uplink", "status", "--spool", spool, "--json"))["held"] == 1 and not objects(cloud)
    roadfuse("uplink", "run", *place, "--clips", "all")
    assert json.loads(roadfuse("uplink", "status", "--spool", spool, "--json"))["delivered"] == 1
    assert objects(cloud) == {hashlib.sha256(redacted.path.read_bytes()).hexdigest(): 1}
    assert not list(spool.glob("*scene-*"))
