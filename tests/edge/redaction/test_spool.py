"""From the spool to the cloud: only redacted clips go up, each redacted once, whatever is killed on the way."""

from __future__ import annotations

import hashlib
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from edge.drive.reader import DriveReader
from edge.errors import DriveFormatError, RedactionError
from edge.redaction.facts import facts_of
from edge.redaction.spool import Redactor
from edge.uplink.client import Uplink
from edge.uplink.command import main as uplink
from edge.uplink.outbox import Outbox, Quota
from roadfuse.v1.ingest_pb2 import SceneSummary
from tests.edge.uplink.ingest_server import Cloud, serve

from .conftest import Redacted


@pytest.fixture
def cloud() -> Cloud:
    return Cloud()


@pytest.fixture
def channel(cloud: Cloud) -> Iterator[grpc.Channel]:
    server, address = serve(cloud)
    with grpc.insecure_channel(address) as channel:
        yield channel
    server.stop(None)


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    with Outbox(tmp_path / "spool", Quota(1 << 40, 0)) as outbox:
        yield outbox


def held(outbox: Outbox, clip: bytes) -> int:
    sequence, _ = outbox.give(SceneSummary(first_ns=7, hardness=0.5), 1.0)
    outbox.path(sequence).write_bytes(clip)
    outbox.hold(sequence, hashlib.sha256(clip).digest(), len(clip))
    return sequence


def test_only_redacted_clips_go_up_and_the_cloud_was_told_of_their_digests(
    redacted: Redacted, outbox: Outbox, cloud: Cloud, channel: grpc.Channel, tmp_path: Path
) -> None:
    sequences = [held(outbox, redacted.source.read_bytes()), held(outbox, redacted.path.read_bytes())]
    way_up = Uplink(outbox, channel, prepare=Redactor(outbox))
    for _ in range(20):
        if not way_up.step():
            break
    assert outbox.account().delivered == 2
    for sequence in sequences:
        content = bytes(cloud.clips[outbox.id, sequence])
        (tmp_path / "clip.mcap").write_bytes(content)
        with DriveReader(tmp_path / "clip.mcap") as drive:
            assert facts_of(drive.metadata) is not None
        assert content == redacted.path.read_bytes()
    assert not [path for path in outbox.folder.iterdir() if "scene" in path.name]


def test_what_is_no_drive_stays_on_board(outbox: Outbox, channel: grpc.Channel, cloud: Cloud) -> None:
    held(outbox, b"not a drive")
    said: list[str] = []
    way_up = Uplink(outbox, channel, prepare=Redactor(outbox), say=said.append)
    while way_up.step():
        pass
    assert outbox.account().held == 1 and not cloud.clips
    assert len(said) == 1 and "expected an MCAP file" in said[0]


def test_a_clip_that_is_gone_is_none_of_redaction_s_business(outbox: Outbox) -> None:
    with pytest.raises(FileNotFoundError):
        Redactor(outbox)(outbox.path(5))
    outbox.path(5).write_bytes(b"x")
    with pytest.raises(DriveFormatError):
        Redactor(outbox)(outbox.path(5))


def test_a_disk_that_refuses_keeps_the_clip(redacted: Redacted, outbox: Outbox) -> None:
    sequence = held(outbox, redacted.source.read_bytes())
    redactor = Redactor(outbox)
    (outbox.folder / f".scene-{sequence:06d}.anew.part").mkdir()  # so that it can't be written
    with pytest.raises(RedactionError, match="can't be redacted"):
        redactor(outbox.path(sequence))
    assert outbox.path(sequence).read_bytes() == redacted.source.read_bytes()


def test_a_clip_for_which_the_disk_had_no_room_is_tried_again_without_a_new_start(
    redacted: Redacted, outbox: Outbox, cloud: Cloud, channel: grpc.Channel
) -> None:
    sequences = [held(outbox, redacted.source.read_bytes()) for _ in range(2)]
    now_s, said = [0.0], list[str]()
    way_up = Uplink(outbox, channel, prepare=Redactor(outbox), say=said.append, clock=lambda: now_s[0])
    parts = [outbox.folder / f".scene-{sequence:06d}.anew.part" for sequence in sequences]
    for part in parts:
        part.mkdir()  # so that it can't be written
    while way_up.step():
        pass
    assert not cloud.clips and outbox.account().held == 2
    assert len(said) == 2 and all("others go first for 10 minutes: scene-" in line for line in said)
    for part in parts:
        part.rmdir()
    now_s[0] = 601.0
    while way_up.step():
        pass
    assert outbox.account().delivered == 2


UPLINK = """
import sys, grpc
from pathlib import Path
from edge.redaction.spool import Redactor
from edge.uplink.client import Uplink
from edge.uplink.outbox import Outbox
with Outbox(Path(sys.argv[1])) as outbox, grpc.insecure_channel(sys.argv[2]) as channel:
    way_up = Uplink(outbox, channel, prepare=Redactor(outbox))
    while way_up.step():
        pass
"""


def test_killed_at_any_instant_each_clip_goes_up_redacted_and_none_is_lost(
    redacted: Redacted, outbox: Outbox, cloud: Cloud
) -> None:
    server, address = serve(cloud)
    sequences = [held(outbox, redacted.source.read_bytes()) for _ in range(3)]
    rng, words = random.Random(3), [sys.executable, "-c", UPLINK, str(outbox.folder), address]
    for _ in range(4):
        process = subprocess.Popen(words, stderr=subprocess.DEVNULL)
        time.sleep(rng.uniform(1.0, 3.0))
        process.send_signal(signal.SIGKILL)
        process.wait()
        whole = {redacted.source.read_bytes(), redacted.path.read_bytes()}
        assert all(path.read_bytes() in whole for path in outbox.folder.glob("scene-*.mcap"))
    assert subprocess.run(words, check=False).returncode == 0
    server.stop(None)
    assert outbox.account().delivered == 3
    assert all(bytes(cloud.clips[outbox.id, sequence]) == redacted.path.read_bytes() for sequence in sequences)
    assert not [path for path in outbox.folder.iterdir() if "scene" in path.name]


def test_unredacted_and_a_detector_contradict_each_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["run", "--spool", str(tmp_path), "--cloud", "x:1", "--identity", str(tmp_path), "--unredacted"]
    with pytest.raises(SystemExit) as misuse:
        uplink([*words, "--faces", str(tmp_path)])
    assert misuse.value.code == 2 and "--unredacted alone" in capsys.readouterr().err
