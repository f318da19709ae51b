"""Recorded runs and clips: whole or not there, whatever kills the process or fills the disk."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge.clips import CLIP_METADATA, Clips
from edge.drive import codec, topics
from edge.drive.journal import EXTENT_BYTES
from edge.drive.messages import DriveMessage
from edge.drive.reader import DriveReader
from edge.drive.writer import DriveWriter
from edge.errors import ConfigError
from edge.feed import Fed
from edge.recorder import RUN_METADATA, Recorder
from edge.replay import Replay, replay
from edge.samples import NOT_FUSED, CanFrame, Event
from edge.scenes import Scene, SceneConfig
from edge.uplink.outbox import Outbox, digest
from roadfuse.v1.ingest_pb2 import MEDIA_STATE_HELD, MEDIA_STATE_LOST

# Every drive is hard to this one, so that scenes come early and often.
EAGER = SceneConfig(open_at=0.05, close_below=0.02, max_ns=1_500_000_000, pre_roll_ns=500_000_000, duplicate_cosine=2.0)

# The first extent of a drive's file fits, the second does not.
FULL_BYTES = EXTENT_BYTES + 500_000
SMALL_DISK = f"""
import resource, signal, sys
from edge.command import main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({FULL_BYTES}, {FULL_BYTES}))
sys.exit(main())
"""

CHILD = """
import sys
from pathlib import Path
from edge.loop import LoopConfig
from edge.recorder import RUN_METADATA, Recorder
from edge.replay import Replay
from tests_recorder_scenes import EAGER
drive, out, *spool = map(Path, sys.argv[1:])
recorder = Recorder(out, spool[0] if spool else None, EAGER, lossless=True)
with Replay(drive, config=LoopConfig(scenes=EAGER), recorder=recorder, speed=1) as run:
    for decision in run:
        print(decision.emitted_ns, flush=True)
"""


def eager_run(drive: Path, out: Path | None, spool: Path | None) -> Replay:
    from edge.loop import LoopConfig

    with Replay(drive, config=LoopConfig(scenes=EAGER), recorder=Recorder(out, spool, EAGER, lossless=True)) as run:
        list(run)
    return run


def can_frame(tenth: int) -> Fed:
    at_ns = tenth * 100_000_000
    payload = codec.encode(CanFrame(at_ns, tenth, 0, 1, b"x")).SerializeToString()
    message = DriveMessage(at_ns, tenth, 0, at_ns, topics.CAN, payload)
    return Fed(Event(at_ns, NOT_FUSED, None, len(payload)), message)


def scene(number: int, at_ns: int = 0) -> Scene:
    return Scene(number, first_ns=at_ns, last_ns=at_ns, peak_ns=at_ns, peak_hardness=0.9, refusal="")


def recorded_s(path: Path) -> float:
    with DriveReader(path) as reader:
        return max((message.arrival_ns for message in reader.messages()), default=0) / 1e9


def test_a_clip_holds_pre_roll_scene_and_decisions_and_replays(drive: Path, tmp_path: Path) -> None:
    run = eager_run(drive, None, tmp_path / "spool")
    clips = sorted((tmp_path / "spool").glob("*.mcap"))
    assert clips
    assert len(clips) == run.statistics.as_dict()["scenes"]["queued"]
    for clip in clips:
        with DriveReader(clip) as reader:
            facts = reader.metadata[CLIP_METADATA]
            assert reader.complete
            stamps = [m.capture_ns for m in reader.messages(topics=[topics.CAMERA])]
            decided = [m.capture_ns for m in reader.messages(topics=[topics.DECISION])]
        assert int(facts["first_ns"]) in stamps
        assert int(facts["last_ns"]) in decided
        assert min(stamps) >= int(facts["first_ns"]) - EAGER.pre_roll_ns
        assert list(replay(clip))


def test_the_same_run_writes_the_same_bytes(drive: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        eager_run(drive, tmp_path / f"{name}.mcap", tmp_path / name)
    a, b = sorted((tmp_path / "a").glob("*.mcap")), sorted((tmp_path / "b").glob("*.mcap"))
    assert [path.name for path in a] == [path.name for path in b]

    def content(path: Path) -> list[tuple[str, int, bytes]]:
        with DriveReader(path) as reader:  # decisions carry measured timings, the one thing that differs
            return [(m.topic, m.arrival_ns, m.payload) for m in reader.messages() if m.topic != topics.DECISION]

    assert [content(x) for x in a] == [content(x) for x in b]
    assert content(tmp_path / "a.mcap") == content(tmp_path / "b.mcap")


def killed_while_recording(drive: Path, out: Path, dice: random.Random, *spool: Path) -> list[int]:
    """When the loop decided until it was killed; its recorder left a drive behind."""
    folder = out.parent
    (folder / "tests_recorder_scenes.py").write_text(f"from edge.scenes import SceneConfig\nEAGER = {EAGER!r}\n")
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(drive), str(out), *map(str, spool)],
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": str(folder), "PATH": "/usr/bin:/bin"},
    )
    assert child.stdout is not None
    lines = []
    for _ in range(dice.randrange(10, 60)):
        line = child.stdout.readline()
        if not line:
            break
        lines.append(int(line))
    time.sleep(dice.random() * 0.02)
    child.send_signal(signal.SIGKILL)
    child.wait()
    return lines


def test_a_kill_loses_no_queued_clip_and_at_most_a_second_of_the_drive(drive: Path, tmp_path: Path) -> None:
    dice = random.Random(4)
    for attempt in range(3):
        spool = tmp_path / f"spool-{attempt}"
        decided_ns = killed_while_recording(drive, out := tmp_path / f"{attempt}.mcap", dice, spool)
        with DriveReader(out) as reader:
            arrivals = [message.arrival_ns for message in reader.messages()]
        # A chunk is half a second of arrivals; the rest is what was on its way to the recorder.
        assert decided_ns[-1] - max(arrivals, default=decided_ns[0]) <= 1_000_000_000
        for clip in spool.glob("*.mcap"):
            with DriveReader(clip) as reader:
                assert reader.complete
                assert sum(1 for _ in reader.messages()) > 0
        Recorder(None, spool, lossless=True).close()  # the next run clears what the kill left half done
        assert not list(spool.glob("*.part"))


def test_the_drive_goes_on_while_a_clip_is_made_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reached, durable = threading.Event(), threading.Event()

    def slow(_: Path) -> None:
        reached.set()
        assert durable.wait(60)

    monkeypatch.setattr("edge.clips.sync", slow)
    recorder = Recorder(out := tmp_path / "out.mcap", tmp_path / "spool", lossless=True)
    recorder.offer([can_frame(0)], [], [scene(1)])
    assert reached.wait(60)
    for tenth in range(1, 100):
        recorder.offer([can_frame(tenth)], [], [])
    until = time.monotonic() + 60
    while time.monotonic() < until and recorded_s(out) < 9:
        time.sleep(0.05)
    assert recorded_s(out) >= 9 and not recorder.clips
    durable.set()
    recorder.close()
    assert len(recorder.clips) == 1


def recorded_too_slowly(
    out: Path | None, spool: Path, ended: dict[int, Scene], monkeypatch: pytest.MonkeyPatch
) -> Recorder:
    """Of 400 batches, a tenth of a second each, the clips' thread takes one and then nothing until all were offered.

    Args:
        ended: batch -> scene that ended with it.
    """
    reached, ready = threading.Event(), threading.Event()
    take = Clips.take

    def slow(*what: Any) -> None:
        reached.set()
        assert ready.wait(60)
        take(*what)

    monkeypatch.setattr(Clips, "take", slow)
    recorder = Recorder(out, spool, lossless=False)
    for tenth in range(400):
        recorder.offer([can_frame(tenth)], [], [ended[tenth]] if tenth in ended else [])
        assert reached.wait(60)
        while recorded := len(recorder._passed._batches):  # the drive's thread keeps up
            time.sleep(0.001 * recorded)
    ready.set()
    recorder.close()
    assert recorder.dropped_batches > 100
    return recorder


def test_a_scene_keeps_its_number_though_a_slow_disk_costs_its_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = {tenth: scene(tenth // 2) for tenth in (2, 4, 399)}
    recorded_too_slowly(out := tmp_path / "out.mcap", tmp_path / "spool", ended, monkeypatch)
    with DriveReader(out) as reader:
        assert sum(1 for _ in reader.messages()) == 400
    with Outbox(tmp_path / "spool") as outbox:
        told, _ = outbox.to_tell(10)
    assert [one.sequence for one in told] == [1, 2, 3]
    assert {one.first_ns for one in told} == {0}


def test_a_clip_is_of_its_scene_or_is_told_as_lost_however_late_a_slow_disk_makes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = {2: scene(1), 5: scene(2, 500_000_000), 200: scene(3, 20_000_000_000)}
    recorder = recorded_too_slowly(None, tmp_path / "spool", ended, monkeypatch)
    with Outbox(tmp_path / "spool") as outbox:
        told, _ = outbox.to_tell(10)
    assert [one.first_ns for one in told] == [0, 500_000_000, 20_000_000_000]  # numbered in the order of time
    assert [one.media for one in told] == [MEDIA_STATE_HELD, MEDIA_STATE_LOST, MEDIA_STATE_HELD]
    assert told[1].reason == "overrun"
    held = []
    for clip in recorder.clips:
        with DriveReader(clip) as reader:
            held.append([message.capture_ns // 100_000_000 for message in reader.messages()])
    assert held == [[0], list(range(180, 201))]


def test_a_clip_keeps_what_a_sensor_says_whose_clock_is_ahead(tmp_path: Path) -> None:
    recorder = Recorder(None, tmp_path / "spool", lossless=True)
    ahead = can_frame(1)
    ahead = ahead._replace(message=ahead.message._replace(capture_ns=60_000_000_000))
    recorder.offer([can_frame(0), ahead, can_frame(2)], [], [scene(1)])
    recorder.close()
    with DriveReader(recorder.clips[0]) as reader:
        assert sum(1 for _ in reader.messages()) == 3


def test_a_disk_that_refuses_the_last_byte_is_told_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: DriveWriter) -> None:
        raise OSError(28, "No space left on device")

    recorder = Recorder(tmp_path / "out.mcap", tmp_path / "spool", lossless=True)
    recorder.offer([can_frame(0)], [], [])
    monkeypatch.setattr(DriveWriter, "close", full)
    with pytest.raises(OSError, match="No space left"):
        recorder.close()


def test_whatever_fails_behind_the_queue_is_told_to_who_offers(tmp_path: Path) -> None:
    recorder = Recorder(None, tmp_path / "spool", lossless=True, opinion=lambda _: 1 // 0)  # type: ignore[arg-type, return-value]
    with pytest.raises(ZeroDivisionError):
        for tenth in range(10_000):
            recorder.offer([can_frame(tenth)], [], [scene(1)] if tenth == 3 else [])
    recorder.close(complete=False)


def test_a_spool_has_one_recorder_at_a_time(tmp_path: Path) -> None:
    first = Recorder(None, tmp_path / "spool", lossless=True)
    with pytest.raises(ConfigError, match="in use"):
        Recorder(None, tmp_path / "spool", lossless=True)
    first.close()
    Recorder(None, tmp_path / "spool", lossless=True).close()


def test_a_run_that_is_not_complete_leaves_a_drive_that_says_so(tmp_path: Path) -> None:
    for complete in (False, True):
        recorder = Recorder(out := tmp_path / "out.mcap", None, lossless=True)
        recorder.offer([can_frame(tenth) for tenth in range(30)], [], [])
        recorder.close(complete=complete, statistics={"frames": 0})
        with DriveReader(out) as reader:
            assert reader.complete is complete
            assert sum(1 for _ in reader.messages()) == 30 and RUN_METADATA in reader.metadata


def test_a_full_disk_is_said_in_one_line_and_the_drive_stays_readable(
    simulate_drive: Callable[..., Path], tmp_path: Path
) -> None:
    source, out = simulate_drive(seconds=9), tmp_path / "full.mcap"
    assert source.stat().st_size > 2 * FULL_BYTES - EXTENT_BYTES

    command = [sys.executable, "-c", SMALL_DISK, "replay", str(source), "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert "Traceback" not in done.stderr
    with DriveReader(out) as reader:
        assert sum(1 for _ in reader.messages()) > 1000


def test_every_scene_has_a_number_and_a_summary_though_only_some_have_a_clip(drive: Path, tmp_path: Path) -> None:
    run = eager_run(drive, None, tmp_path / "spool")
    counted = run.statistics.as_dict()["scenes"]
    with Outbox(tmp_path / "spool") as outbox:
        scenes, _ = outbox.to_tell(1000)
    assert [scene.sequence for scene in scenes] == list(range(1, counted["queued"] + counted["refused"] + 1))
    kept = [scene for scene in scenes if scene.media == MEDIA_STATE_HELD]
    assert len(kept) >= counted["queued"] > 0
    for scene in kept:
        clip = tmp_path / "spool" / f"scene-{scene.sequence:06d}.mcap"
        assert (scene.sha256, scene.bytes) == digest(clip)
        assert scene.scores and scene.bundle_id and scene.hardness > 0
        assert len(scene.embedding) >= 64 and scene.embedding_scale > 0
        assert scene.HasField("latitude_deg")
        assert len(scene.SerializeToString()) < 1200
