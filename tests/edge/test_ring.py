"""Rings: what each policy takes, and what becomes of the rest."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.camera_ring import CameraRing
from edge.choices import ring_for
from edge.frameset import Pick
from edge.gap import Gap
from edge.ring import NEVER, Ring
from edge.streams import MS, SECOND, STREAMS, Stream
from tests.edge.sources import TABLE, Tick, best

CAMERA, AUDIO, IMU, GNSS, VEHICLE, LIDAR = STREAMS
NOW_NS = 10**12


def filled(stream: Stream, *stamps_ms: float) -> Ring:
    ring = ring_for(stream)
    for seq, stamp_ms in enumerate(stamps_ms):
        ring.push(Tick(int(stamp_ms * MS), seq), NOW_NS)
    return ring


def take(ring: Ring, frame_ns: int) -> Pick:
    return ring.choice.take(ring, frame_ns)


def taken_ms(ring: Ring, frame_ms: float) -> list[float]:
    return [tick.stamp_ns / MS for tick in take(ring, int(frame_ms * MS)).samples]


def total(ring: Ring) -> int:
    return sum(ring.accounts().values())


# --- choice -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frame_ms", "expected"), [(999, []), (1000, [1000]), (1099, [1000]), (1100, [1100]), (2600, [1100]), (2601, [])]
)
def test_hold_takes_the_last_at_or_before(frame_ms: float, expected: list[float]) -> None:
    assert taken_ms(filled(GNSS, 1000, 1100), frame_ms) == expected


@pytest.mark.parametrize(
    ("frame_ms", "expected"),
    [
        (979, []),
        (980, [1000]),
        (1040, [1000]),
        (1050, [1000]),
        (1079, [1000]),
        (1080, [1100]),
        (1250, [1100]),
        (1251, []),
    ],
)
def test_nearest_takes_the_nearest_and_no_further_ahead_than_allowed(frame_ms: float, expected: list[float]) -> None:
    assert taken_ms(filled(LIDAR, 1000, 1100), frame_ms) == expected


def test_nearest_takes_the_older_of_two_equally_near() -> None:
    assert taken_ms(filled(LIDAR, 1000, 1020), 1010) == [1000]


@pytest.mark.parametrize(
    ("frame_ms", "expected"),
    [
        (974, []),
        (975, [1000]),
        (1000, [1000]),
        (1004, [1000, 1010]),
        (1010, [1010]),
        (1210, [1010]),
        (1211, []),
        (1480, [1500]),
    ],
)
def test_interpolate_takes_both_sides_or_the_one_there_is(frame_ms: float, expected: list[float]) -> None:
    assert taken_ms(filled(VEHICLE, 1000, 1010, 1500), frame_ms) == expected


def test_window_takes_all_of_it_and_nothing_of_its_first_instant() -> None:
    assert taken_ms(filled(IMU, 0, 1, 500, 1000, 1001), 1000) == [1, 500, 1000]


def test_absence_says_whether_it_was_heard_at_all() -> None:
    assert take(ring_for(GNSS), SECOND).absence == "silent"
    assert take(filled(GNSS, 1000), 10 * SECOND).absence == "stale"
    assert take(filled(IMU, 1000), 1500 * MS).absence == "stale"


def test_stale_window_is_not_counted_as_used() -> None:
    ring = filled(IMU, 1000)
    take(ring, 1500 * MS)
    assert ring.accounts() == {"used": 0, "buffered": 1}


@given(st.sampled_from(TABLE[1:]), st.integers(0, 1 << 32))
def test_ring_takes_the_best_of_all_that_came(stream: Stream, seed: int) -> None:
    """Any order, stamps that may be equal, frames that follow each other at any distance."""
    rng = random.Random(seed)
    ring, came = ring_for(stream), list[Tick]()
    stamp_ns, ticks = NOW_NS, []
    for seq in range(rng.randrange(1, min(stream.ring, 60))):
        stamp_ns += rng.choice([0, 1, rng.randrange(30 * MS), rng.randrange(stream.silence_ns)])
        ticks.append(Tick(stamp_ns, seq))
    frame_ns = NOW_NS
    waiting = sorted(ticks, key=lambda tick: tick.seq + rng.uniform(0, rng.choice([0, 3, 30])))
    while waiting:
        for tick in waiting[: rng.randrange(8)]:
            ring.push(tick, stamp_ns + SECOND)
            came.append(tick)
            waiting.remove(tick)
        frame_ns += rng.choice([0, 1, rng.randrange(60 * MS), rng.randrange(stream.silence_ns)])
        pick, expected = take(ring, frame_ns), best(stream, came, frame_ns)
        stamps = [tick.stamp_ns for tick in expected.samples]
        assert ([tick.stamp_ns for tick in pick.samples], pick.age_ns) == (stamps, expected.age_ns)
        assert total(ring) == len(came) and min(ring.accounts().values()) >= 0


# --- bounds -----------------------------------------------------------------------------------------------------------


def test_bound_is_the_promise_before_anything_came() -> None:
    assert ring_for(IMU).bound_ns(SECOND) == SECOND - IMU.lateness_ns


def test_bound_reaches_to_the_earliest_next_sample() -> None:
    ring = ring_for(IMU)
    for seq in range(3):
        ring.push(Tick(SECOND + seq * 5 * MS, seq), SECOND + 10 * MS)
    assert ring.bound_ns(SECOND + 10 * MS) == SECOND + 12 * MS - 1


def test_bound_stays_before_a_missing_number_until_the_promise_is_over() -> None:
    ring = ring_for(IMU)
    for seq in (0, 2, 3):
        ring.push(Tick(SECOND + seq * 5 * MS, seq), SECOND + 15 * MS)
    assert ring.bound_ns(SECOND + 15 * MS) == SECOND
    assert ring.bound_ns(SECOND + 24 * MS) == SECOND + 4 * MS
    ring.push(Tick(SECOND + 5 * MS, 1), SECOND + 16 * MS)
    assert ring.bound_ns(SECOND + 16 * MS) == SECOND + 17 * MS - 1


def test_lost_number_stops_being_waited_for() -> None:
    ring = ring_for(IMU)
    for seq in (0, 2, 3):
        ring.push(Tick(SECOND + seq * 5 * MS, seq), SECOND + 15 * MS)
    assert ring.bound_ns(SECOND + 35 * MS) == SECOND + 17 * MS - 1


def test_sample_that_comes_after_its_number_was_given_up_is_still_taken() -> None:
    ring = ring_for(IMU)
    for seq in (0, 2, 3):
        ring.push(Tick(SECOND + seq * 5 * MS, seq), SECOND + 15 * MS)
    ring.bound_ns(2 * SECOND)
    ring.push(Tick(SECOND + 5 * MS, 1), 2 * SECOND)
    assert taken_ms(ring, 1015) == [1000, 1005, 1010, 1015]
    assert "duplicate" not in ring.accounts()


def test_silent_stream_holds_nobody_back() -> None:
    ring = filled(LIDAR, 1000)
    frame_ns = 1000 * MS + LIDAR.silence_ns
    assert ring.holds_until(frame_ns, frame_ns) > frame_ns
    assert ring.holds_until(frame_ns, frame_ns + LIDAR.lateness_ns) == 0


def test_push_tells_whether_a_waiting_frame_may_be_complete() -> None:
    ring = filled(GNSS, 1000)
    ring.wake_ns = NEVER
    assert not ring.push(Tick(1100 * MS, 1), NOW_NS)
    ring.wake_ns = 1150 * MS
    assert not ring.push(Tick(1149 * MS, 2), NOW_NS)
    assert ring.push(Tick(1150 * MS, 3), NOW_NS)


# --- reasons ----------------------------------------------------------------------------------------------------------


def test_reasons_of_a_ring() -> None:
    ring = filled(LIDAR, *range(1000, 1900, 100))
    ring.push(Tick(1800 * MS, 8), NOW_NS)
    ring.push(Tick(NOW_NS + 3 * MS, 9), NOW_NS)
    assert ring.accounts() == {"used": 0, "buffered": 9, "duplicate": 1, "clock": 1}
    assert taken_ms(ring, 1500) == [1500]
    assert ring.accounts() == {"used": 1, "buffered": 3, "superseded": 5, "duplicate": 1, "clock": 1}
    ring.push(Tick(1900 * MS, 10), NOW_NS)  # number 9 is skipped
    ring.push(Tick(1450 * MS, 9), NOW_NS)
    assert ring.accounts()["late"] == 1
    for k in range(20):
        ring.push(Tick((2000 + k) * MS, 11 + k), NOW_NS)
    assert ring.accounts()["overflow"] == 8 and len(ring.stamps) == LIDAR.ring
    assert total(ring) == 9 + 4 + 20


def test_clock_jitter_is_no_wrong_clock() -> None:
    ring = ring_for(IMU)
    ring.push(Tick(SECOND + 2 * MS, 0), SECOND)
    assert ring.accounts() == {"used": 0, "buffered": 1}


def test_number_of_a_sample_refused_for_its_clock_may_come_again() -> None:
    ring = filled(IMU, 1000)
    ring.push(Tick(NOW_NS + SECOND, 1), NOW_NS)
    ring.push(Tick(1005 * MS, 1), NOW_NS)
    assert taken_ms(ring, 1010) == [1000, 1005]


def test_restarted_counter_is_heard_even_if_its_first_samples_come_crossed() -> None:
    ring = filled(IMU, *range(1000, 1050, 5))
    for stamp_ms, seq in ((1055, 1), (1050, 0), (1060, 2)):
        ring.push(Tick(stamp_ms * MS, seq), NOW_NS)
    assert taken_ms(ring, 1060) == [*range(1000, 1065, 5)]


def test_used_sample_is_never_counted_as_dropped() -> None:
    ring = filled(LIDAR, 1000, 1015)
    assert taken_ms(ring, 1010) == [1015]
    ring.push(Tick(1012 * MS, 3), NOW_NS)  # late, and before the one that was used
    assert taken_ms(ring, 1012) == [1012]
    assert taken_ms(ring, 1015) == [1015]
    assert ring.accounts() == {"used": 2, "buffered": 0, "superseded": 1}


def test_straggler_into_a_used_window_is_used_by_the_next() -> None:
    ring = filled(IMU, 1000)
    ring.push(Tick(1010 * MS, 2), NOW_NS)
    assert taken_ms(ring, 1010) == [1000, 1010]
    ring.push(Tick(1005 * MS, 1), NOW_NS)
    assert ring.accounts() == {"used": 2, "buffered": 1}
    assert taken_ms(ring, 1011) == [1000, 1005, 1010]
    assert ring.accounts() == {"used": 3, "buffered": 0}


def test_straggler_that_no_frame_took_is_dropped() -> None:
    ring = filled(IMU, 1000)
    ring.push(Tick(1010 * MS, 2), NOW_NS)
    take(ring, 1010 * MS)
    ring.push(Tick(1005 * MS, 1), NOW_NS)
    take(ring, 2007 * MS)
    assert ring.accounts() == {"used": 2, "buffered": 0, "superseded": 1}


# --- numbers ----------------------------------------------------------------------------------------------------------


def test_gap_remembers_stragglers_but_not_without_end() -> None:
    gap = Gap(remembered=10)
    for first in range(0, 1000, 2):
        gap.open(first, first + 1, 0, 0)
        gap.close(first + 1)
    assert len(gap.lost) <= 11
    assert gap.fill(998) and not gap.fill(998) and not gap.fill(0)


def test_gap_opens_no_wider_than_it_remembers() -> None:
    gap = Gap(remembered=10)
    gap.open(0, 1 << 40, 0, 0)
    assert len(gap.missing) == 10


# --- the camera's -----------------------------------------------------------------------------------------------------


def frames(ring: CameraRing, *pushes: tuple[float, float, int]) -> list[float]:
    """Push (stamp ms, arrival ms, number) and give the stamps as the ring has them."""
    for stamp_ms, now_ms, seq in pushes:
        ring.push(Tick(int(stamp_ms * MS), seq), int(now_ms * MS))  # type: ignore[arg-type]
    return [stamp_ns / MS for stamp_ns in ring.stamps]


def test_camera_stamps_are_left_alone_while_they_make_sense() -> None:
    ring = CameraRing(CAMERA)
    assert frames(ring, (5000, 5020, 0), (5100, 5120, 2), (5050, 5125, 1), (5150, 5148.5, 3)) == [
        5000,
        5050,
        5100,
        5150,
    ]
    assert ring.offset_ns == 0


@pytest.mark.parametrize("wrong_ms", [0, 4000, 5049, 5171, 9000])
def test_camera_whose_clock_was_set_is_shifted_onto_ours(wrong_ms: float) -> None:
    ring = CameraRing(CAMERA)
    stamps = frames(ring, (5000, 5020, 0), (5050, 5068, 1), (wrong_ms, 5120, 2), (wrong_ms + 50, 5168, 3))
    assert stamps == [5000, 5050, 5102, 5152]


def test_camera_whose_clock_is_right_again_is_believed() -> None:
    ring = CameraRing(CAMERA)
    assert frames(ring, (5000, 5020, 0), (9050, 5070, 1), (5100, 5120, 2), (5150, 5170, 3)) == [5000, 5050, 5100, 5150]
    assert ring.offset_ns == 0


def test_camera_with_another_epoch_is_shifted_from_its_first_frame() -> None:
    assert frames(CameraRing(CAMERA), (0, 5020, 0), (50, 5071, 1)) == [5020, 5070]


def test_camera_frames_in_a_burst_after_a_stall_are_late_not_shifted() -> None:
    ring = CameraRing(CAMERA)
    frames(ring, (5000, 5020, 0))
    ring.leave()
    ring.miss(8000 * MS)
    assert frames(ring, *((5000 + 50 * k, 8100, k) for k in range(1, 60))) == []
    assert ring.accounts()["late"] == 59 and ring.offset_ns == 0


def test_repeated_camera_frames_do_not_pass_for_new_ones() -> None:
    ring = CameraRing(CAMERA)
    once = [(5000 + 50 * k, 5020 + 50 * k, k) for k in range(10)]
    again = [(stamp_ms, 5500 + 10 * seq, seq) for stamp_ms, _, seq in once]
    assert len(frames(ring, *once, *again)) == 10
    assert ring.accounts()["duplicate"] == 10


def test_camera_frame_leaves_once() -> None:
    ring = CameraRing(CAMERA)
    frames(ring, (5000, 5020, 0), (5050, 5070, 1))
    assert [ring.leave().seq, ring.leave().seq] == [0, 1]
    assert ring.accounts() == {"used": 2, "buffered": 0}
    with pytest.raises(NotImplementedError):
        take(ring, 0)


def test_ring_of_a_patient_stream_learns() -> None:
    ring = ring_for(replace(LIDAR, worth=2.0))
    for seq in range(20):
        ring.push_and_learn(Tick(seq * 100 * MS, seq), seq * 100 * MS + 45 * MS)
    frame_ns = 2000 * MS
    assert ring.patience is not None
    assert ring.patience.until(ring.stamps, ring.head, frame_ns, frame_ns + 20 * MS) > frame_ns + 40 * MS
