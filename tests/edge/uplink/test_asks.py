"""What the cloud asks for while the ring holds it: one clip an ask, and an answer whatever happens."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from edge.clips import CLIP_METADATA
from edge.drive import codec, topics
from edge.drive.messages import DriveMessage
from edge.drive.reader import DriveReader
from edge.feed import Fed
from edge.recorder import Recorder
from edge.samples import NOT_FUSED, CanFrame, Event
from edge.scenes import SceneConfig
from edge.uplink.asks import MOST_OPEN, Ask, Asks
from edge.uplink.client import Uplink
from edge.uplink.outbox import Outbox, Quota
from edge.uplink.pace import Link
from roadfuse.v1 import campaign_pb2
from roadfuse.v1.ingest_pb2 import SceneSummary

from .ingest_server import Cloud, serve

SECOND = 1_000_000_000
CONFIG = SceneConfig()  # its ring reaches back 24 s
ROOMY = Quota(1 << 40, 0)


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    with Outbox(tmp_path / "spool", ROOMY) as outbox:
        yield outbox


@pytest.fixture(autouse=True)
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """The recorder looks after each batch, not twice a second."""
    monkeypatch.setattr("edge.clips._ASKS_S", 0.0)


class Drive:
    """A recorder that is fed CAN frames, ten a second of the vehicle's clock."""

    def __init__(self, outbox: Outbox, quota: Quota = ROOMY) -> None:
        self.recorder = Recorder(None, outbox.folder, CONFIG, lossless=True, quota=quota)

    def go(self, first_s: float, last_s: float) -> Drive:
        for tenth in range(round(first_s * 10), round(last_s * 10)):
            at_ns = tenth * SECOND // 10
            payload = codec.encode(CanFrame(at_ns, tenth, 0, 1, b"x")).SerializeToString()
            message = DriveMessage(at_ns, tenth, 0, at_ns, topics.CAN, payload)
            self.recorder.offer([Fed(Event(at_ns, NOT_FUSED, None, len(payload)), message)], [], [])
        clips = self.recorder._clips
        assert clips is not None
        while not clips._ring or clips._ring[-1] != message:
            time.sleep(0.001)
        return self

    def end(self) -> None:
        self.recorder.close()


def ask(name: str, first_s: float, last_s: float) -> Ask:
    return Ask(name, round(first_s * SECOND), round(last_s * SECOND), "near miss")


def answers(outbox: Outbox) -> dict[str, str]:
    return dict(Asks(outbox).to_tell())


def test_what_the_ring_holds_becomes_a_clip_of_these_instants(outbox: Outbox) -> None:
    drive = Drive(outbox).go(100, 110)
    Asks(outbox).put([ask("7", 103, 105)])
    drive.go(110, 111).end()
    assert answers(outbox) == {"7": "kept"}
    (clip,) = drive.recorder.clips
    with DriveReader(clip) as reader:
        stamps = [message.capture_ns / SECOND for message in reader.messages()]
        facts = reader.metadata[CLIP_METADATA]
    assert (stamps[0], stamps[-1], len(stamps)) == (103.0, 105.0, 21)
    assert (facts["ask"], facts["reason"]) == ("7", "near miss")
    scenes, _ = outbox.to_tell(9)
    assert [(scene.first_ns, scene.last_ns) for scene in scenes] == [(103 * SECOND, 105 * SECOND)]
    outbox.told(scenes, [])
    up = outbox.next_up(link=Link(clips="wanted"))
    assert up is not None and up.path == clip


@pytest.mark.parametrize(("first_s", "last_s"), [(90, 92), (99.9, 101), (100, 101), (300, 301), (108, 300)])
def test_what_the_ring_does_not_hold_is_gone(outbox: Outbox, first_s: float, last_s: float) -> None:
    drive = Drive(outbox).go(100, 130)  # its ring begins at 106
    Asks(outbox).put([ask("7", first_s, last_s)])
    drive.go(130, 131).end()
    assert answers(outbox) == {"7": "gone"} and outbox.account().given == 0


def test_what_is_not_over_yet_is_waited_for(outbox: Outbox) -> None:
    Asks(outbox).put([ask("7", 104, 106)])
    drive = Drive(outbox).go(100, 105)
    time.sleep(0.05)
    assert answers(outbox) == {}
    drive.go(105, 107).end()
    assert answers(outbox) == {"7": "kept"}


def test_an_ask_that_comes_again_gives_one_clip_and_is_answered_again(outbox: Outbox) -> None:
    asks = Asks(outbox)
    asks.put([ask("7", 101, 102)])
    drive = Drive(outbox).go(100, 104)
    asks.put([ask("7", 101, 102), ask("8", 101, 102)])
    drive.go(104, 106).end()
    assert outbox.account().given == 1 and answers(outbox) == {"7": "kept", "8": "kept"}
    asks.told(["7", "8"])
    assert answers(outbox) == {}
    assert asks.put([ask("7", 101, 102)]) == 0 and answers(outbox) == {"7": "kept"}


def test_killed_at_any_step_an_ask_has_one_clip_at_most_and_an_answer(outbox: Outbox) -> None:
    asks = Asks(outbox)
    asks.put([ask("before", 1, 2), ask("during", 3, 4), ask("after", 5, 6)])
    outbox.give(SceneSummary(), 0.0, "during")  # killed before its clip was whole
    written, _ = outbox.give(SceneSummary(), 0.0, "after")
    outbox.path(written).write_bytes(b"clip")  # killed before that was noted
    assert [one.id for one in asks.open()] == ["before"]
    with Outbox(outbox.folder, ROOMY) as again:
        again.recover()
    assert answers(outbox) == {"during": "gone", "after": "kept"}
    assert outbox.account().held == 1


def test_a_clip_that_cannot_be_written_is_gone_and_the_recording_goes_on(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    drive = Drive(outbox).go(100, 104)
    monkeypatch.setattr(drive.recorder._clips, "_write_clip", full)
    Asks(outbox).put([ask("7", 101, 102)])
    drive.go(104, 106).end()
    assert answers(outbox) == {"7": "gone"} and outbox.account().lost == 1


def test_a_full_outbox_leaves_an_ask_open_and_the_recording_goes_on(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    Asks(outbox).put([ask("7", 101, 102)])

    def full(*_: object) -> tuple[int, float]:
        raise OSError(28, "database or disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(Outbox, "give", full)
        drive = Drive(outbox).go(100, 104)
        time.sleep(0.1)
        assert answers(outbox) == {}
    drive.go(104, 105).end()
    assert answers(outbox) == {"7": "kept"}


def test_asks_without_sense_are_refused_and_too_many_wait_for_later(outbox: Outbox) -> None:
    asks = Asks(outbox)
    for bad in (Ask("", 1, 2), Ask("x" * 129, 1, 2), Ask("a\nb", 1, 2), Ask("a", 2, 1), Ask("a", -1, 1)):
        with pytest.raises(ValueError, match="got"):
            asks.put([bad])
    many = [ask(f"{i:04}", i, i + 1) for i in range(MOST_OPEN + 5)]
    assert asks.put(many) == MOST_OPEN and len(asks.open()) == MOST_OPEN
    assert not asks.is_known(many[-1])


def test_on_a_full_disk_asks_wait_and_clips_go_up(outbox: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "database or disk is full")

    cloud, lines = Cloud(), list[str]()
    cloud.asks = [campaign_pb2.Ask(id="7", first_ns=1, last_ns=2)]
    sequence, _ = outbox.give(SceneSummary(), 1.0)
    outbox.path(sequence).write_bytes(b"clip")
    outbox.hold(sequence, hashlib.sha256(b"clip").digest(), 4)
    server, address = serve(cloud)
    try:
        with grpc.insecure_channel(address) as channel, monkeypatch.context() as patched:
            patched.setattr(Asks, "put", full)
            Uplink(outbox, channel, say=lines.append).drain(threading.Event())
    finally:
        server.stop(None)
    assert len(cloud.clips) == 1 and "not taken" in lines[0]


def test_an_ask_of_the_cloud_is_answered_with_the_next_report_and_again_if_that_was_lost(outbox: Outbox) -> None:
    cloud = Cloud()
    cloud.asks = [campaign_pb2.Ask(id="7", first_ns=101 * SECOND, last_ns=102 * SECOND)]
    server, address = serve(cloud)
    try:
        with grpc.insecure_channel(address) as channel:
            uplink = Uplink(outbox, channel)
            uplink.drain(threading.Event())
            assert [one.id for one in Asks(outbox).open()] == ["7"]
            Drive(outbox).go(100, 103).end()
            cloud.failures["Report"] = [grpc.StatusCode.UNAVAILABLE]
            with pytest.raises(grpc.RpcError):
                uplink.step()
            cloud.asks = []
            uplink.drain(threading.Event())
            assert cloud.answers == {"7": "kept"} and len(cloud.clips) == 1
    finally:
        server.stop(None)
