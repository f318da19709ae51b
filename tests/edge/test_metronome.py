"""The pace where the camera does not keep it."""

from __future__ import annotations

import pytest

from edge.metronome import ABSENT_PERIOD_NS, PAUSE_NS, STARTUP_NS, Metronome
from edge.ring import NEVER
from edge.streams import DEADLINE_NS, MS, SECOND, STREAMS

PERIOD_NS = 50 * MS


def paced(count: int = 10, period_ns: int = PERIOD_NS) -> Metronome:
    metronome = Metronome(STREAMS[0], DEADLINE_NS)
    metronome.start(0)
    for seq in range(count):
        metronome.beat(seq * period_ns, seq, seq * period_ns + 20 * MS)
    return metronome


def test_expects_nothing_before_it_starts() -> None:
    metronome = Metronome(STREAMS[0], DEADLINE_NS)
    assert metronome.due_ns == NEVER and not metronome.skipped(5 * SECOND, 3)


def test_camera_that_never_shows_up_is_replaced_after_startup() -> None:
    metronome = Metronome(STREAMS[0], DEADLINE_NS)
    metronome.start(7)
    assert (metronome.expected_ns, metronome.due_ns) == (7 + STARTUP_NS, 7 + STARTUP_NS + DEADLINE_NS)
    metronome.miss(metronome.expected_ns, metronome.due_ns)
    assert metronome.expected_ns == 7 + STARTUP_NS + ABSENT_PERIOD_NS


@pytest.mark.parametrize("period_ns", [20 * MS, 33 * MS, 50 * MS, 100 * MS, 200 * MS])
def test_period_is_learned(period_ns: int) -> None:
    metronome = paced(10, period_ns)
    assert metronome.period_ns == period_ns
    assert metronome.due_ns == 10 * period_ns + DEADLINE_NS


def test_dropped_frames_do_not_bend_the_period() -> None:
    metronome = paced()
    metronome.beat(15 * PERIOD_NS, 15, 16 * PERIOD_NS)
    assert metronome.period_ns == PERIOD_NS


def test_jitter_of_one_stamp_hardly_bends_the_period() -> None:
    metronome = paced()
    metronome.beat(10 * PERIOD_NS + 24 * MS, 10, 11 * PERIOD_NS)
    assert metronome.period_ns == PERIOD_NS + 3 * MS


def test_equal_stamps_and_restarted_numbers_leave_a_possible_period() -> None:
    metronome = paced()
    for seq in (10, 11, 12, 0, 1, 5000):
        metronome.beat(9 * PERIOD_NS, seq, 10 * PERIOD_NS)
    assert metronome.period_ns >= SECOND // 60 - 1


def test_gap_in_the_numbers_is_a_skipped_frame() -> None:
    metronome = paced()
    assert metronome.skipped(11 * PERIOD_NS, 11)
    assert not metronome.skipped(10 * PERIOD_NS, 10)
    assert not metronome.skipped(10 * PERIOD_NS, 11)  # no room for another before it


def test_slower_pace_with_whole_numbers_is_no_skipped_frame() -> None:
    assert not paced().skipped(11 * PERIOD_NS, 10)


def test_gap_too_long_for_any_order_of_arrival_is_a_skipped_frame() -> None:
    """Whoever got the frame as late as its promise allows would have found the instant overdue."""
    metronome = paced()
    certain_ns = metronome.expected_ns + DEADLINE_NS - STREAMS[0].lateness_ns
    assert metronome.skipped(certain_ns, 10)
    assert not metronome.skipped(certain_ns - 1, 10)


def test_pause_of_the_recording_is_not_filled() -> None:
    metronome = paced()
    assert metronome.skipped(metronome.expected_ns + PAUSE_NS - 1, 70)
    assert not metronome.skipped(metronome.expected_ns + PAUSE_NS, 70)


def test_past_that_is_long_over_is_not_paced() -> None:
    metronome = paced()
    metronome.beat(10 * PERIOD_NS, 10, 3600 * SECOND)
    assert metronome.expected_ns == 3600 * SECOND


def test_stopped_metronome_expects_nothing_until_a_beat() -> None:
    metronome = paced()
    metronome.stop()
    assert metronome.due_ns == NEVER and not metronome.skipped(20 * PERIOD_NS, 20)
    metronome.beat(20 * PERIOD_NS, 20, 20 * PERIOD_NS)
    assert metronome.expected_ns == 21 * PERIOD_NS
