"""The rig monitor: planted faults are noticed and named, sound rigs left alone, hostile input is no evidence."""

from __future__ import annotations

import math
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from benchmarks.rig_monitor import Drive, drive_of, gathered, kitti_frames, packed, planted, unpacked, world_rig
from edge.alignment.projection import Rig
from edge.alignment.range_edges import KINDS
from edge.alignment.rig_bounds import COARSE, FINE, WINDOWS
from edge.alignment.rig_evidence import AXES, FAULTS, SEEN_SHAPE, STEPS, evidence, line_weights
from edge.alignment.rig_monitor import (
    CLOSE_NS,
    EVERY_NS,
    KEPT,
    MOST_LEAD_NS,
    NOTHING_SEEN,
    RigMonitor,
    Verdict,
    bounded,
)
from edge.errors import AlignmentError
from edge.samples import Frame, Sweep
from export.world.lidar import HIGHEST_RAD, LOWEST_RAD

MS = 1_000_000
F32 = np.float32
STREET_SEED = 21002
RAISING = tuple(axis for axis in AXES if not axis.endswith("_cm"))
RATIOS = arrays.arrays(np.float64, (30, KINDS, FAULTS), elements=st.floats(-50, 50))


@pytest.fixture(scope="module")
def drive() -> Drive:
    """20 s of a street by day, two comparisons a second."""
    return drive_of(STREET_SEED, 20.0, None)


@pytest.fixture(scope="module")
def fine_drive() -> Drive:
    """15 s of that street seen by a LiDAR like real ones."""
    return drive_of(STREET_SEED, 15.0, None, FINE_RAYS)


FINE_RAYS = (1024, 64)
RIG, FINE_RIG = world_rig(), world_rig(FINE_RAYS)


def said(ratios: np.ndarray) -> Verdict:
    verdict = Verdict()
    for number, one in enumerate(ratios):
        verdict.add(one, number * 500 * MS)
    return verdict


def for_axis(axis: str, up: float, down: float, count: int = WINDOWS[1]) -> np.ndarray:
    """Evidence of all kinds of edges for one axis, and against all else."""
    ratios = np.full((count, KINDS, FAULTS), -1.0)
    number = 2 * AXES.index(axis)
    ratios[:, :, number], ratios[:, :, number + 1] = up, down
    return ratios


def watched(monitor: RigMonitor, drive: Drive, late_ms: int = 0) -> list[Any]:
    """Readings of a drive at its own motion; each comparison comes as one frame and one sweep."""
    readings = []
    for number, picture in enumerate(drive.pictures):
        stamp_ns = round(float(drive.motion[number, 0]) * 1e9)
        sweep = Sweep(stamp_ns, number, drive.sweeps[-late_ms][number])
        _, speed_mps, yaw_rate_radps = drive.motion[number].tolist()
        readings.append(monitor.update(Frame(stamp_ns, number, picture), sweep, speed_mps, yaw_rate_radps))
    return readings


@settings(max_examples=40)
@given(RATIOS)
def test_evidence_against_every_fault_raises_no_doubt(ratios: np.ndarray) -> None:
    assert not said(-np.abs(ratios)).reading.is_in_doubt


@settings(max_examples=100)
@given(arrays.arrays(np.float64, (KINDS, FAULTS), elements=st.floats(-1e6, 1e6)), st.floats(1.0, 50.0))
def test_a_kind_of_edge_says_no_more_than_is_allowed(sums: np.ndarray, loudest: float) -> None:
    total = bounded(sums, loudest)
    assert (np.abs(total) <= np.minimum(np.abs(sums), loudest).sum(axis=0) + 1e-9).all()
    assert (bounded(sums + 1.0, loudest) >= total - 1e-9).all()


@settings(max_examples=30)
@given(RATIOS, st.integers(0, 30))
def test_a_thawed_verdict_goes_on_as_the_frozen_one(ratios: np.ndarray, at: int) -> None:
    whole, first, second = said(ratios), said(ratios[:at]), Verdict()
    second.thaw(pickle.loads(pickle.dumps(first.freeze())))
    for number, one in enumerate(ratios[at:], at):
        second.add(one, number * 500 * MS)
    assert second.reading == whole.reading
    assert pickle.dumps(second.freeze()) == pickle.dumps(whole.freeze())


@pytest.mark.parametrize("axis", RAISING)
@pytest.mark.parametrize("sign", [1, -1])
def test_the_axis_that_explains_is_named_with_its_direction(axis: str, sign: int) -> None:
    reading = said(for_axis(axis, *(9.0, -27.0)[::sign])).reading
    assert (reading.is_in_doubt, reading.axis) == (True, axis)
    assert math.copysign(1.0, reading.amount) == sign
    assert abs(reading.amount) <= 2.0 * STEPS[AXES.index(axis)]


@pytest.mark.parametrize("axis", sorted(set(AXES) - set(RAISING)))
def test_a_shift_raises_no_doubt_but_may_explain_one(axis: str) -> None:
    shift = for_axis(axis, 99.0, -99.0)
    assert not said(shift).reading.is_in_doubt
    shift[:, :, 2 * AXES.index("yaw_deg")] = 9.0
    assert said(shift).reading.axis == axis


def test_the_amount_is_where_the_parabola_has_its_top() -> None:
    step = STEPS[AXES.index("yaw_deg")]
    assert said(for_axis("yaw_deg", 9.0, -27.0)).reading.amount == pytest.approx(step)
    assert said(for_axis("yaw_deg", 9.0, -18.0)).reading.amount == pytest.approx(1.5 * step)


def test_a_doubt_begins_where_its_evidence_does() -> None:
    quiet = np.full((KEPT, KINDS, FAULTS), -1.0)
    verdict = said(np.concatenate([quiet, for_axis("late_ms", 20.0, -60.0, 16)]))
    assert verdict.reading.is_in_doubt
    assert verdict.reading.since_ns == KEPT * 500 * MS


def test_a_doubt_ends_when_the_evidence_does() -> None:
    verdict = said(np.concatenate([for_axis("yaw_deg", 9.0, -27.0), np.full((KEPT, KINDS, FAULTS), -1.0)]))
    assert not verdict.reading.is_in_doubt
    assert verdict.reading.since_ns == -1


def test_a_sound_rig_is_left_alone(drive: Drive) -> None:
    readings = watched(RigMonitor(RIG), drive)
    assert not any(reading.is_in_doubt for reading in readings)
    assert readings[-1].comparisons >= 20


@pytest.mark.parametrize(("axis", "amount"), [("yaw_deg", 0.5), ("yaw_deg", -0.5), ("pitch_deg", -0.5)])
def test_a_turned_rig_is_noticed_and_named(drive: Drive, axis: str, amount: float) -> None:
    reading = watched(RigMonitor(planted(RIG, axis, amount)), drive)[-1]
    assert reading.is_in_doubt
    assert reading.axis == axis
    assert math.copysign(1.0, reading.amount) == math.copysign(1.0, amount)


def test_sweeps_of_another_instant_speak_for_a_skew(drive: Drive) -> None:
    said_by = {late: gathered(drive, RIG, late).sum(axis=(0, 1)) for late in (0, 50, -50)}
    number = 2 * AXES.index("late_ms")
    assert said_by[50][number] > 0.0 > said_by[50][number + 1]
    assert said_by[-50][number + 1] > 0.0 > said_by[-50][number]
    assert (said_by[0][number : number + 2] < 0.0).all()


def test_the_way_between_sweep_and_picture_is_made_up_for(drive: Drive) -> None:
    seen, total = np.zeros(SEEN_SHAPE, F32), np.zeros(FAULTS)
    comparisons = zip(drive.sweeps[-50], drive.pictures, drive.motion.tolist(), strict=True)
    for points, picture, (_, speed_mps, yaw_rate_radps) in comparisons:
        total += evidence(RIG, points, picture, 0.05, speed_mps, yaw_rate_radps, seen)[0].sum(axis=0)
    turns_and_skew = [2 * AXES.index(axis) + side for axis in RAISING for side in (0, 1)]
    assert (total[turns_and_skew] < 0.0).all()


def test_one_drive_makes_the_same_bytes_again_and_can_be_cut(drive: Drive) -> None:
    half = Drive(drive.what, drive.motion[20:], drive.pictures[20:], {0: drive.sweeps[0][20:]})
    first, second, third = RigMonitor(RIG), RigMonitor(RIG), RigMonitor(RIG)
    watched(first, drive)
    start = Drive(drive.what, drive.motion[:20], drive.pictures[:20], {0: drive.sweeps[0][:20]})
    watched(second, start)
    third.thaw(pickle.loads(pickle.dumps(second.freeze())))
    watched(third, half)
    assert pickle.dumps(third.freeze()) == pickle.dumps(first.freeze())
    assert third.reading == first.reading


def test_what_a_freeze_gave_is_not_touched_afterwards(drive: Drive) -> None:
    monitor = RigMonitor(RIG)
    frozen = monitor.freeze()
    before = pickle.dumps(frozen)
    watched(monitor, drive)
    assert pickle.dumps(frozen) == before


def test_a_state_of_another_version_is_refused_in_one_line() -> None:
    frozen = RigMonitor(RIG).freeze()
    frozen["seen"] = np.zeros((1, 2, 3), F32)
    with pytest.raises(AlignmentError, match=r"^rig monitor: expected a state of"):
        RigMonitor(RIG).thaw(frozen)


def comparisons(monitor: RigMonitor, drive: Drive, **change: Any) -> int:
    """How many of five frames are compared when something about each is changed."""
    for number in range(5):
        stamp_ns = number * 500 * MS
        picture, points = drive.pictures[number], drive.sweeps[0][number]
        frame = change.get("frame", lambda f: f)(Frame(stamp_ns, number, picture))
        sweep = change.get("sweep", lambda s: s)(Sweep(stamp_ns, number, points))
        monitor.update(frame, sweep, change.get("speed_mps", 10.0), change.get("yaw_rate_radps", 0.0))
    return monitor.reading.comparisons


def test_the_first_sweep_only_starts_the_way_and_the_others_count(drive: Drive) -> None:
    assert comparisons(RigMonitor(RIG), drive) == 4


NONE = np.zeros((0, 4), F32)
HOSTILE: dict[str, dict[str, Any]] = {
    "standstill": {"speed_mps": 0.0},
    "speed not finite": {"speed_mps": math.nan},
    "turn not finite": {"yaw_rate_radps": math.inf},
    "no picture": {"frame": lambda f: f._replace(image=None)},
    "another size": {"frame": lambda f: f._replace(image=f.image[:100])},
    "no grey levels": {"frame": lambda f: f._replace(image=f.image.astype(np.float32))},
    "four channels": {"frame": lambda f: f._replace(image=np.zeros((384, 640, 4), np.uint8))},
    "no sweep": {"sweep": lambda s: None},
    "empty sweep": {"sweep": lambda s: s._replace(points_lidar=NONE)},
    "sweep of nothing finite": {"sweep": lambda s: s._replace(points_lidar=np.full((500, 4), math.nan, F32))},
    "sweep behind": {"sweep": lambda s: s._replace(points_lidar=s.points_lidar * F32(-1.0))},
    "no sweep's shape": {"sweep": lambda s: s._replace(points_lidar=np.zeros(7, F32))},
    "sweep too old": {"sweep": lambda s: s._replace(stamp_ns=s.stamp_ns - MOST_LEAD_NS - 1)},
    "one sweep again and again": {"sweep": lambda s: s._replace(stamp_ns=0)},
}


@pytest.mark.parametrize("what", HOSTILE)
def test_what_cannot_be_compared_is_no_evidence(drive: Drive, what: str) -> None:
    assert comparisons(RigMonitor(RIG), drive, **HOSTILE[what]) == 0


@pytest.mark.parametrize("level", [0, 255])
def test_a_blind_camera_speaks_for_nothing(drive: Drive, level: int) -> None:
    blind = np.full((RIG.height_px, RIG.width_px, 3), level, np.uint8)
    ratios, edges, _ = evidence(RIG, drive.sweeps[0][0], blind, 0.0, 10.0, 0.0, np.zeros(SEEN_SHAPE, F32))
    assert edges > 0
    assert np.abs(ratios).max() < 1e-6


def test_points_that_are_not_finite_change_nothing_elsewhere(drive: Drive) -> None:
    points = drive.sweeps[0][0]
    broken = np.concatenate([np.full((9, 4), math.nan, F32), points])
    sound, other = (
        evidence(RIG, p, drive.pictures[0], 0.0, 10.0, 0.0, np.zeros(SEEN_SHAPE, F32))[0] for p in (points, broken)
    )
    assert sound.tobytes() == other.tobytes()


def test_a_sweep_in_no_order_of_rings_has_no_edges(fine_drive: Drive) -> None:
    points = np.random.default_rng(0).permutation(fine_drive.sweeps[0][0])
    assert evidence(FINE_RIG, points, fine_drive.pictures[0], 0.0, 10.0, 0.0, np.zeros(SEEN_SHAPE, F32)).edges == 0


def test_after_a_clock_that_went_back_time_counts_anew(drive: Drive) -> None:
    monitor = RigMonitor(RIG)
    assert comparisons(monitor, drive) == 4
    before = monitor.reading
    frame = Frame(-9_000 * MS, 9, drive.pictures[5])
    assert monitor.update(frame, Sweep(frame.stamp_ns, 9, drive.sweeps[0][5]), 10.0, 0.0) == before
    again = Frame(frame.stamp_ns + EVERY_NS + MS, 10, drive.pictures[6])
    after = monitor.update(again, Sweep(again.stamp_ns, 10, drive.sweeps[0][6]), 10.0, 0.0)
    assert after.comparisons == before.comparisons + 1


def test_sweeps_between_comparisons_are_passed_over(drive: Drive) -> None:
    monitor = RigMonitor(RIG)
    for number in range(11):
        stamp_ns = number * 100 * MS
        frame = Frame(stamp_ns, number, drive.pictures[number])
        monitor.update(frame, Sweep(stamp_ns, number, drive.sweeps[0][number]), 10.0, 0.0)
    assert monitor.reading.comparisons == 2


def test_what_was_seen_lately_says_less(drive: Drive) -> None:
    seen = np.zeros(SEEN_SHAPE, F32)
    first, again = (evidence(RIG, drive.sweeps[0][3], drive.pictures[3], 0.0, 10.0, 0.0, seen)[0] for _ in range(2))
    assert np.abs(again).sum() < 0.5 * np.abs(first).sum()


def test_a_new_monitor_has_seen_nothing() -> None:
    assert RigMonitor(RIG).reading == NOTHING_SEEN


def test_no_time_between_comparisons_is_refused_in_one_line() -> None:
    with pytest.raises(AlignmentError, match="expected some time between comparisons"):
        RigMonitor(RIG, every_ns=0)


def test_what_stands_alone_says_nothing() -> None:
    at_px, kinds = np.array([[100, 100], [300, 100], [302, 130]]), np.zeros(3, np.intp)
    assert line_weights(at_px, kinds).tolist() == pytest.approx([0.0, 2**-0.5, 2**-0.5])


def test_numbers_that_are_no_rig_never_reach_the_monitor() -> None:
    with pytest.raises(AlignmentError, match="focal lengths above 0"):
        RigMonitor(Rig(-1.0, 500.0, 320.0, 192.0, 640, 384, np.eye(4)))


@pytest.mark.parametrize("axis", ["pitch_deg", "yaw_deg", "roll_deg"])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_three_kitti_frames_speak_against_a_turned_rig(recordings: Any, axis: str, sign: float) -> None:
    folder = recordings / "noncommercial" / "kitti-2011_09_26"
    if not folder.is_dir():
        pytest.skip(f"no KITTI frames at {folder}")
    number = 2 * AXES.index(axis) + (sign < 0)
    total = np.zeros(FAULTS)
    own = np.zeros(FAULTS)
    for rig, points, picture in kitti_frames(folder):
        for sums, one in ((total, rig), (own, planted(rig, axis, 0.5 * sign))):
            sums += evidence(one, points, picture, 0.0, 0.0, 0.0, np.zeros(SEEN_SHAPE, F32))[0].sum(axis=0)
    assert total[number] < 0.0 < own[number]


def test_a_sound_rig_with_a_fine_lidar_is_left_alone(fine_drive: Drive) -> None:
    readings = watched(RigMonitor(FINE_RIG), fine_drive)
    assert not any(reading.is_in_doubt for reading in readings)
    assert readings[-1].comparisons >= 20


@pytest.mark.parametrize("axis", [*RAISING, "right_cm"])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_fine_lidar_tells_turns_skews_and_shifts_aside_within_ten_seconds(
    fine_drive: Drive, axis: str, sign: float
) -> None:
    amount = sign * STEPS[AXES.index(axis)]
    late_ms = round(amount) if axis == "late_ms" else 0
    rig = FINE_RIG if late_ms else planted(FINE_RIG, axis, amount)
    reading = watched(RigMonitor(rig), fine_drive, late_ms)[WINDOWS[1]]
    assert reading.is_in_doubt
    assert reading.axis == axis
    assert math.copysign(1.0, reading.amount) == sign


def test_to_a_fine_lidar_a_shift_is_reason_for_a_doubt() -> None:
    verdict = Verdict(is_fine=True)
    for number, one in enumerate(for_axis("ahead_cm", 9.0, -27.0)):
        verdict.add(one, number * 500 * MS)
    assert (verdict.reading.is_in_doubt, verdict.reading.axis) == (True, "ahead_cm")


def test_another_lidar_starts_the_evidence_anew(drive: Drive, fine_drive: Drive) -> None:
    monitor = RigMonitor(RIG)
    watched(monitor, Drive(drive.what, drive.motion[:20], drive.pictures[:20], {0: drive.sweeps[0][:20]}))
    assert monitor.reading.comparisons > 10
    rest = slice(20, 24)
    watched(monitor, Drive("", fine_drive.motion[rest], fine_drive.pictures[rest], {0: fine_drive.sweeps[0][rest]}))
    assert monitor.reading.comparisons == 4


def test_a_picture_of_the_sweep_s_own_instant_is_waited_for(drive: Drive) -> None:
    """Sweeps every 500 ms, pictures 50 ms before and at each: only the latter are compared."""
    monitor, compared = RigMonitor(RIG), []
    for number in range(12):
        for lead_ns in (-50 * MS, 0):
            before = monitor.reading.comparisons
            stamp_ns = number * 500 * MS
            frame = Frame(stamp_ns + lead_ns, number, drive.pictures[number])
            monitor.update(frame, Sweep(stamp_ns, number, drive.sweeps[0][number]), 10.0, 0.0)
            compared += [lead_ns] * (monitor.reading.comparisons - before)
    assert compared == [0] * 11


def test_between_instants_a_fine_lidar_says_nothing_of_shifts(fine_drive: Drive) -> None:
    monitor = RigMonitor(planted(FINE_RIG, "right_cm", 5.0))
    for number, picture in enumerate(fine_drive.pictures):
        stamp_ns = number * 700 * MS
        _, speed_mps, yaw_rate_radps = fine_drive.motion[number].tolist()
        frame = Frame(stamp_ns + CLOSE_NS + MS, number, picture)
        monitor.update(frame, Sweep(stamp_ns, number, fine_drive.sweeps[0][number]), speed_mps, yaw_rate_radps)
    ratios = monitor.freeze()["verdict"]["ratios"]
    is_shift = np.repeat([axis not in RAISING for axis in AXES], 2)
    assert not ratios[..., is_shift].any() and ratios[..., ~is_shift].any()


def test_a_thawed_monitor_knows_how_fine_its_lidar_is(fine_drive: Drive) -> None:
    first, second = RigMonitor(FINE_RIG), RigMonitor(FINE_RIG)
    watched(first, fine_drive)
    second.thaw(pickle.loads(pickle.dumps(first.freeze())))
    assert pickle.dumps(second.freeze()) == pickle.dumps(first.freeze())
    assert second._verdict.is_fine


@pytest.mark.parametrize("bounds", [COARSE, FINE])
def test_every_window_and_fault_has_its_bounds(bounds: Any) -> None:
    assert bounds.scales.shape == (KINDS, FAULTS)
    assert bounds.thresholds.shape == (len(WINDOWS), FAULTS)
    assert (bounds.thresholds > 0.0).all() and (bounds.scales > 0.0).all() and len(bounds.loudest) == len(WINDOWS)


@pytest.mark.parametrize("rays", [(360, 32), FINE_RAYS])
def test_ranges_of_the_cache_are_the_sweep_again(rays: tuple[int, int]) -> None:
    azimuth = ((np.arange(rays[0]) + 0.5) / rays[0] - 0.5) * 2 * math.pi
    azimuth = azimuth[np.abs(azimuth) < 0.7]
    elevation = np.linspace(LOWEST_RAD, HIGHEST_RAD, rays[1])[:, None]
    range_m = np.random.default_rng(0).uniform(2.0, 119.0, (rays[1], len(azimuth)))
    level = range_m * np.cos(elevation)
    height = range_m * np.sin(elevation)
    points = np.stack([level * np.cos(azimuth), level * np.sin(azimuth), height], axis=-1).reshape(-1, 3).astype(F32)
    again = unpacked(packed(points, rays), rays)
    assert np.abs(again[:, :3] - points).max() < 0.002
