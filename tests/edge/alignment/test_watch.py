"""Alignment in the loop: what contradicts the other sensors is named, lowers the agreement, and makes a frame hard."""

from __future__ import annotations

import pickle
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from foxglove_schemas_protobuf.CameraCalibration_pb2 import CameraCalibration
from foxglove_schemas_protobuf.FrameTransform_pb2 import FrameTransform

from edge import bundle
from edge.alignment.activity import WATCHED_WIDTH_PX, small_grey
from edge.alignment.rig_monitor import RigMonitor
from edge.alignment.watch import Watch, is_due
from edge.decision import Alignment, ClockOffset, Decision, RigDoubt, Suspect
from edge.drive import topics
from edge.drive.reader import DriveReader
from edge.feed import Fed, events
from edge.frameset import EmitReason, FrameSet, Pick
from edge.loop import Loop, LoopConfig
from edge.samples import NOT_FUSED, Event, Frame, RigMessage
from edge.streams import STREAMS

from .rides import MS, SECOND, START_NS, ride

QUIET = Pick((), 0, "silent")


@pytest.fixture(scope="module")
def fed(drive: Path) -> list[Fed]:
    with DriveReader(drive) as reader:
        return list(events(reader, STREAMS))


@pytest.fixture(scope="module")
def messages(fed: list[Fed]) -> list[RigMessage]:
    return [event.sample for event, _ in fed if event.row == NOT_FUSED and event.sample is not None]


def run(loop: Loop, feed: list[Event]) -> list[Decision]:
    decisions: list[Decision] = []
    for event in feed:
        while loop.due_ns < event.now_ns:
            decisions += loop.step(None, loop.due_ns)
        decisions += loop.step(event, event.now_ns)
    return decisions


def score(decision: Decision, name: str) -> float:
    return next(score.value for score in decision.scores if score.name == name)


def test_a_drive_in_order_agrees_and_suspects_nothing(fed: list[Fed]) -> None:
    decisions = run(Loop(bundle.load()), [event for event, _ in fed])
    assert len(decisions) > 100
    assert [d for d in decisions if d.alignment.suspects or d.alignment.rig] == []
    assert np.median([d.alignment.agreement for d in decisions]) > 0.9


def with_frozen_camera(fed: list[Fed], first_ns: int) -> list[Event]:
    feed, last = [], None
    for event, _ in fed:
        if isinstance(event.sample, Frame):
            if event.now_ns < first_ns:
                last = event.sample.image
            else:
                event = event._replace(sample=event.sample._replace(image=last))
        feed.append(event)
    return feed


def test_a_camera_that_freezes_is_named_within_two_seconds_and_makes_frames_harder(fed: list[Fed]) -> None:
    first_ns = fed[0].event.now_ns + 2 * SECOND
    feed = with_frozen_camera(fed, first_ns)
    sound, broken = (run(Loop(bundle.load()), rows) for rows in ([event for event, _ in fed], feed))
    named = [d.stamp_ns for d in broken if any(s[:2] == ("camera", "frozen") for s in d.alignment.suspects)]
    assert named and first_ns - 100 * MS <= named[0] <= first_ns + 2 * SECOND
    pairs = [(score(a, "misaligned"), score(b, "misaligned")) for a, b in zip(sound, broken) if a.stamp_ns >= named[0]]
    assert np.mean([b - a for a, b in pairs]) > 0.5
    blind = run(Loop(bundle.load(), LoopConfig(align=False)), feed)
    assert {d.alignment for d in blind} == {Alignment()}, "a loop that does not align says nothing of it"
    assert [d.embedding for d in blind] == [d.embedding for d in broken], "and fuses the same"


def test_a_sound_clock_that_is_late_lowers_the_agreement() -> None:
    def seen(late_ms: int) -> Alignment:
        watch, rows = Watch(STREAMS), [stream.name for stream in STREAMS[1:]]
        told = Alignment()
        for seq, (stamp_ns, small, sound, imu) in enumerate(ride(40.0, sound_ns=late_ms * MS)):
            assert small is not None
            frame = Frame(stamp_ns, seq, np.repeat(small[:, :, None], 3, axis=2))
            given = {"audio": Pick(sound, 0, ""), "imu": Pick(imu, 0, "")}
            picks = [given.get(name, QUIET) for name in rows]
            watch.look(FrameSet(stamp_ns, frame, seq, stamp_ns, EmitReason.SETTLED, picks))
            told = watch.conclude({})
        return told

    on_time, late = seen(0), seen(250)
    clock = next(clock for clock in late.clocks if clock.stream == "audio")
    assert abs(clock.late_ns - 250 * MS) < 20 * MS and clock.confidence > 0.95
    assert on_time.agreement > 0.9 and late.agreement < 0.1


@pytest.mark.parametrize("rate_hz, looked_at", [(5, 1), (10, 1), (20, 2), (30, 3), (60, 5)])
def test_of_frames_that_come_fast_some_are_looked_at_and_stand_for_the_others(rate_hz: int, looked_at: int) -> None:
    watch, told = Watch(STREAMS), list[Alignment]()
    quiet = [QUIET for _ in STREAMS[1:]]
    for number in range(61):
        stamp_ns = START_NS + number * SECOND // rate_hz
        watch.look(FrameSet(stamp_ns, None, number, stamp_ns, EmitReason.SETTLED, quiet))
        told.append(watch.conclude({}))
    assert [a is b for a, b in pairwise(told)] == [number % looked_at > 0 for number in range(1, 61)]


def test_after_a_clock_that_went_back_the_next_frame_is_looked_at() -> None:
    assert is_due(START_NS, None) and not is_due(START_NS + 1, START_NS) and is_due(START_NS - 1, START_NS)


def test_the_rig_is_watched_once_calibration_and_poses_are_known(messages: list[RigMessage]) -> None:
    assert {message.topic for message in messages} == {topics.CALIBRATION, topics.TRANSFORM}
    watch = Watch(STREAMS)
    for message in messages:
        watch.learn(message)
    assert isinstance(watch._rig, RigMonitor)
    assert abs(watch._rig.rig.width_px - 640) == 0


def test_words_about_the_rig_that_make_no_sense_are_passed_over(messages: list[RigMessage]) -> None:
    watch = Watch(STREAMS)
    watch.learn(RigMessage(topics.CALIBRATION, b"\xff" * 40))
    for number in range(200):
        watch.learn(RigMessage(topics.TRANSFORM, number.to_bytes(2, "big") * 9))
    assert watch._rig is None and len(watch._transforms) <= 64


def test_a_rig_that_is_told_again_with_every_frame_keeps_what_was_gathered(messages: list[RigMessage]) -> None:
    watch = Watch(STREAMS)
    for message in messages:
        watch.learn(message)
    monitor = watch._rig
    for number in range(100):
        for message in messages:
            kind = CameraCalibration if message.topic == topics.CALIBRATION else FrameTransform
            again = kind.FromString(message.payload)
            again.timestamp.seconds = number
            watch.learn(RigMessage(message.topic, again.SerializeToString()))
    assert monitor is not None and watch._rig is monitor


@pytest.mark.parametrize("harm", ["distortion", "focal", "size", "quaternion", "translation"])
@pytest.mark.parametrize("value", [float("nan"), 1e308, -1.0])
def test_a_hostile_rig_never_stops_the_loop_and_a_good_one_stays(
    messages: list[RigMessage], harm: str, value: float
) -> None:
    hostile = []
    for message in messages:
        if message.topic == topics.CALIBRATION:
            calibration = CameraCalibration.FromString(message.payload)
            if harm == "distortion":
                calibration.D[:] = [value] * 5
            elif harm == "focal":
                calibration.K[0] = value
            elif harm == "size":
                calibration.width = 0
            hostile.append(RigMessage(message.topic, calibration.SerializeToString()))
        else:
            pose = FrameTransform.FromString(message.payload)
            if harm == "quaternion":
                pose.rotation.x = value
            elif harm == "translation":
                pose.translation.x = value
            hostile.append(RigMessage(message.topic, pose.SerializeToString()))
    alone, after = Watch(STREAMS), Watch(STREAMS)
    for message in hostile:
        alone.learn(message)
    for message in [*messages, *hostile]:
        after.learn(message)
    assert after._rig is not None


def test_a_rig_outlives_a_thaw_though_transforms_that_make_no_sense_came_after_it(messages: list[RigMessage]) -> None:
    calibration = next(message for message in messages if message.topic == topics.CALIBRATION)
    lidar = FrameTransform(parent_frame_id="camera", child_frame_id="lidar")
    lidar.rotation.w = 1.0
    camera = FrameTransform(parent_frame_id="base", child_frame_id="camera")  # its rotation has no length
    watch, thawed = Watch(STREAMS), Watch(STREAMS)
    watch.learn(calibration)
    for pose in (lidar, camera):
        watch.learn(RigMessage(topics.TRANSFORM, pose.SerializeToString()))
    thawed.thaw(watch.freeze())
    assert watch._rig is not None and thawed._rig is not None
    assert (thawed._rig.rig.cam_SE3_lidar == watch._rig.rig.cam_SE3_lidar).all()


def test_the_rig_is_watched_on_after_the_camera_s_clock_was_set(fed: list[Fed]) -> None:
    feed = [event for event, _ in fed]
    half_ns = (feed[0].now_ns + feed[-1].now_ns) // 2
    set_back = [
        event._replace(sample=event.sample._replace(stamp_ns=event.sample.stamp_ns - 3 * SECOND))
        if isinstance(event.sample, Frame) and event.now_ns > half_ns
        else event
        for event in feed
    ]
    compared = []
    for rows in ([event for event in feed if event.now_ns <= half_ns], set_back, feed):
        loop = Loop(bundle.load())
        run(loop, rows)
        *_, comparisons = pickle.loads(loop.freeze())["watch"]["rig"]["verdict"]["reading"]
        compared.append(comparisons)
    assert compared[0] < compared[1] == compared[2]


def test_a_thawed_watch_goes_on_as_the_frozen_one_would(fed: list[Fed]) -> None:
    feed = [event for event, _ in fed]
    whole, first, later = (Loop(bundle.load()) for _ in range(3))
    wanted = [d.alignment for d in run(whole, feed)]
    half = len(feed) // 2
    begun = [d.alignment for d in run(first, feed[:half])]
    frozen = first.freeze()
    later.thaw(frozen)
    assert begun + [d.alignment for d in run(later, feed[half:])] == wanted
    assert pickle.loads(later.freeze())["watch"].keys() == pickle.loads(frozen)["watch"].keys()


def test_a_decision_keeps_its_alignment_on_disk(fed: list[Fed]) -> None:
    decision = run(Loop(bundle.load()), [event for event, _ in fed[:200]])[-1]
    alignment = Alignment(
        0.25, (Suspect("camera", "dirty", 0.75, 17),), (ClockOffset("audio", -40_000_000, 0.5),),
        RigDoubt("yaw_deg", 0.5, 12, 1.5),
    )  # fmt: skip
    from dataclasses import replace

    kept = replace(decision, alignment=alignment)
    assert Decision.from_message(kept.to_message()).alignment == alignment
    assert Decision.from_message(decision.to_message()).alignment.suspects == decision.alignment.suspects


@pytest.mark.parametrize("height, width", [(384, 640), (1080, 1920), (375, 1242), (96, 160), (40, 60), (1, 1)])
def test_the_small_picture_is_of_one_width_whatever_the_camera(height: int, width: int) -> None:
    picture = np.full((height, width, 3), 90, np.uint8)
    small = small_grey(picture)
    assert small.shape[1] == WATCHED_WIDTH_PX and small.ndim == 2
    assert np.abs(small.astype(int) - 90).max() <= 1
