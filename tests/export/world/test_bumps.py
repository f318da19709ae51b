"""A rough road: one bump jolts the picture, is felt by the IMU and is heard, all at the instant the axle hits it."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from edge.drive import codec, topics
from edge.errors import ConfigError
from edge.samples import AudioChunk, Frame, ImuSample
from export.model.labels import FACT_SOUNDS, SOUND_EVENTS
from export.world.bumps import WALKING_MPS, WHEELBASE_M, Blow, Bump, blows, ride
from export.world.delivery import WorldEvent
from export.world.journey import Journey, undertake
from export.world.motion import GRAVITY_MPS2, Motion
from export.world.scenario import compose
from export.world.simulate import START_NS, WorldConfig, simulate
from export.world.sound.microphone import RATE_HZ
from export.world.town import town

SEED, TOWN, SECONDS, SCENARIO = 3, 4, 6.0, "urban"
FPS = 50


@pytest.fixture(scope="module")
def journey() -> Journey:
    return undertake(SEED, town(TOWN), compose(SEED, SCENARIO, SECONDS, "clear", "day"), SECONDS, "rough")


@pytest.fixture(scope="module")
def motion(journey: Journey) -> Motion:
    return Motion(SEED, journey.road, journey.ego, journey.bumps)


def drive(surface: str, **options: int) -> list[WorldEvent]:
    config = WorldConfig(SEED, SECONDS, SCENARIO, "clear", "day", lidar=False, town=TOWN, surface=surface, **options)
    return list(simulate(config, encode=False))


@pytest.fixture(scope="module")
def rough() -> list[WorldEvent]:
    return drive("rough", width_px=320, height_px=192, fps=FPS)


@pytest.fixture(scope="module")
def smooth() -> list[WorldEvent]:
    return drive("smooth", width_px=320, height_px=192, fps=FPS)


def heard(events: list[WorldEvent]) -> np.ndarray:
    return np.concatenate([e.sample.pcm for e in events if isinstance(e.sample, AudioChunk)]).astype(float) / 32768.0


def digest(config: WorldConfig) -> str:
    total = hashlib.sha256()
    for e in simulate(config, encode=False):
        if e.sample is not None and not isinstance(e.sample, Frame):
            total.update(codec.encode(e.sample).SerializeToString(deterministic=True))
        elif isinstance(e.sample, Frame) and e.sample.image is not None:
            total.update(e.sample.image.tobytes())
    return total.hexdigest()


def test_smooth_is_the_default_and_nothing_but_bumps_makes_a_road_rough(
    smooth: list[WorldEvent], motion: Motion
) -> None:
    assert (
        digest(WorldConfig(2, 0.5))
        == digest(WorldConfig(2, 0.5, surface="smooth"))
        != digest(WorldConfig(2, 0.5, surface="rough"))
    )
    undisturbed = undertake(SEED, town(TOWN), compose(SEED, SCENARIO, SECONDS, "clear", "day"), SECONDS)
    assert undisturbed.bumps == ()
    level = Motion(SEED, undisturbed.road, undisturbed.ego)
    assert not level.heave_m.any() and level.blows == ()
    assert (level.s_m == motion.s_m).all() and (level.speed_mps == motion.speed_mps).all()
    assert "thump" not in {s.name for e in smooth if e.topic == topics.TRUTH for s in e.message.sounds}


def test_an_unknown_surface_is_refused() -> None:
    with pytest.raises(ConfigError, match="surface: expected one of smooth, rough, got 'gravel'"):
        WorldConfig(1, surface="gravel")


def test_the_rear_axle_hits_a_wheelbase_later(motion: Motion) -> None:
    assert len(motion.blows) >= 6
    for front in (blow for blow in motion.blows if blow.is_front):
        rear = next((b for b in motion.blows if b.bump == front.bump and not b.is_front), None)
        if rear is not None:
            between = (motion.time_s > front.time_s) & (motion.time_s < rear.time_s)
            speed = float(motion.speed_mps[between].mean())
            assert rear.time_s - front.time_s == pytest.approx(WHEELBASE_M / speed, rel=0.05)
            middle_m = float(np.interp(front.time_s, motion.time_s, motion.s_m))
            assert front.bump.s_m - middle_m == pytest.approx(0.5 * WHEELBASE_M, abs=0.01)


def test_harder_the_faster_up_to_a_limit_and_nothing_at_a_walk() -> None:
    bump, time_s = Bump("joint", 20.0, 0.0, 0.5), np.arange(0.0, 60.0, 0.005)
    lifts = []
    for speed in (0.9 * WALKING_MPS, 4.0, 10.0, 20.0, 30.0):
        struck = blows([bump], time_s, speed * time_s, np.full(len(time_s), speed))
        lifts.append(struck[0].lift_m if struck else 0.0)
    assert lifts[0] == 0.0 < lifts[1] < lifts[2] < lifts[3] == lifts[4]


def test_the_body_swings_out_and_settles() -> None:
    time_s = np.arange(0.0, 4.0, 0.005)
    found = ride([Blow(1.0, True, Bump("joint", 0.0, 0.0, 1.0), 0.03)], time_s)
    before, soon, late = time_s < 1.0, (time_s >= 1.0) & (time_s < 1.2), time_s > 2.5
    assert not found.heave_m[before].any() and not found.pitch_rad[before].any()
    assert 0.002 < found.heave_m[soon].max() < 0.01  # m
    assert -0.006 < found.pitch_rad[soon].min() < -0.001  # the nose goes up first
    assert found.heave_m.min() < 0.0 < found.pitch_rad.max()  # and swings back
    assert 1.0 < np.abs(found.lift_mps2[soon]).max() < 8.0
    assert np.abs(found.heave_m[late]).max() < 0.1 * found.heave_m.max()


def test_a_thump_is_heard_when_the_axle_hits(rough: list[WorldEvent], smooth: list[WorldEvent], motion: Motion) -> None:
    added = np.abs(heard(rough) - heard(smooth))
    checked = 0
    for earlier, blow in zip((None, *motion.blows), motion.blows):
        if blow.time_s > SECONDS - 0.3 or (earlier is not None and blow.time_s - earlier.time_s < 0.25):
            continue
        at = round(blow.time_s * RATE_HZ)
        piece = added[at - 1600 : at + 1600]
        first = (int(np.flatnonzero(piece > 0.15 * piece.max())[0]) - 1600) / RATE_HZ
        assert first == pytest.approx(0.0, abs=0.004)
        checked += 1
    assert checked >= 3


def test_the_picture_jolts_at_the_same_instant(
    rough: list[WorldEvent], smooth: list[WorldEvent], motion: Motion
) -> None:
    pictures = [
        np.stack([e.sample.image for e in events if isinstance(e.sample, Frame)]).astype(np.int16)
        for events in (rough, smooth)
    ]
    far = slice(40, 110)  # rows in which the joints themselves are too small to count
    differ = np.abs(pictures[0][:, far] - pictures[1][:, far]).mean(axis=(1, 2, 3))
    first = motion.blows[0].time_s
    times = np.arange(len(differ)) / FPS
    assert differ[times < first - 1e-6].max() < 0.2 * differ[(times > first) & (times < first + 0.2)].max()
    soon = np.flatnonzero(differ > 0.25 * differ[(times > first) & (times < first + 0.1)].max())[0] / FPS
    assert first <= soon <= first + 0.06


def test_the_imu_feels_it(rough: list[WorldEvent], motion: Motion) -> None:
    samples = sorted((e.sample for e in rough if isinstance(e.sample, ImuSample)), key=lambda s: s.seq)
    stamps = (np.array([s.stamp_ns for s in samples]) - START_NS) / 1e9
    lifted = np.array([s.accel_mps2[2] for s in samples]) - GRAVITY_MPS2
    turned = np.array([s.gyro_radps[1] for s in samples])
    hard = max((b for b in motion.blows if b.is_front and 0.5 < b.time_s < 5.0), key=lambda b: b.lift_m)
    before = (stamps < motion.blows[0].time_s) & (stamps > 0.0)
    after = (stamps > hard.time_s) & (stamps < hard.time_s + 0.1)
    assert np.abs(lifted[after]).max() > 4.0 * lifted[before].std()
    assert np.abs(turned[after]).max() > 4.0 * turned[before].std()


def test_the_truth_lists_a_thump_with_its_exact_onset_and_no_label_changes(
    rough: list[WorldEvent], motion: Motion
) -> None:
    truths = [e.message for e in rough if e.topic == topics.TRUTH]
    instants = np.array([blow.time_s for blow in motion.blows])
    listed = [
        t.timestamp.ToNanoseconds() / 1e9 - START_NS / 1e9 - s.onset_s
        for t in truths for s in t.sounds if s.name == "thump"
    ]  # fmt: skip
    assert len(listed) >= 6
    assert max(np.abs(instants - at).min() for at in listed) < 0.003
    assert "thump" not in (*SOUND_EVENTS, *FACT_SOUNDS)
    assert not any("thump" in t.caption for t in truths)
