"""Waiting beyond the promise: only where the stream's own deliveries say that it pays."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from edge.patience import Patience
from edge.streams import MS, STREAMS

LIDAR = replace(STREAMS[5], worth=2.0)
PERIOD_NS = 100 * MS
DELAY_NS = 45 * MS


def learned(count: int = 50, delay_ns: int = DELAY_NS, lost_every: int = 0) -> Patience:
    patience = Patience(LIDAR)
    for seq in range(count):
        if not lost_every or seq % lost_every:
            patience.learn(seq * PERIOD_NS, seq, seq * PERIOD_NS + delay_ns)
    return patience


def test_period_and_delay_are_learned() -> None:
    patience = learned()
    assert patience.period_ns == PERIOD_NS
    assert abs(patience.delay_ns - DELAY_NS) <= 3 * MS


def test_lost_samples_do_not_bend_the_period() -> None:
    assert learned(lost_every=3).period_ns == PERIOD_NS


def test_delay_settles_near_the_ninetieth_percentile() -> None:
    patience = Patience(LIDAR)
    for seq in range(4000):
        patience.learn(seq * PERIOD_NS, seq, seq * PERIOD_NS + 20 * MS + seq * 7919 % 1000 * MS // 50)  # 20..40 ms
    assert 34 * MS < patience.delay_ns < 40 * MS


def test_burst_after_a_stall_is_soon_forgotten() -> None:
    patience = learned()
    before_ns = patience.delay_ns
    for seq in range(50, 54):
        patience.learn(seq * PERIOD_NS, seq, 54 * PERIOD_NS)
    for seq in range(54, 104):
        patience.learn(seq * PERIOD_NS, seq, seq * PERIOD_NS + DELAY_NS)
    assert abs(patience.delay_ns - before_ns) <= 3 * MS


def test_waits_for_a_sample_that_is_near_and_soon() -> None:
    patience = learned(50)
    frame_ns = 50 * PERIOD_NS  # the sweep of this very instant is on its way
    stamps = [49 * PERIOD_NS]
    until_ns = patience.until(stamps, 0, frame_ns, frame_ns + 20 * MS)
    assert frame_ns + DELAY_NS <= until_ns <= frame_ns + DELAY_NS + 6 * MS


def test_waits_for_a_sample_a_little_ahead() -> None:
    patience = learned(50)
    frame_ns = 50 * PERIOD_NS - 15 * MS
    assert patience.until([49 * PERIOD_NS], 0, frame_ns, frame_ns + 20 * MS) > frame_ns + 20 * MS


def test_does_not_wait_where_it_costs_more_than_it_brings() -> None:
    patience = learned(50)
    frame_ns = 50 * PERIOD_NS
    at_hand = [frame_ns - 10 * MS]  # worth 2 x 10 ms of waiting, and 27 ms are to go
    assert patience.until(at_hand, 0, frame_ns, frame_ns + 20 * MS) == frame_ns + 20 * MS


def test_expects_nothing_from_a_stream_without_a_period_or_silent_for_long() -> None:
    assert Patience(LIDAR).until([], 0, PERIOD_NS, PERIOD_NS) == 0
    assert learned(50).until([49 * PERIOD_NS], 0, 60 * PERIOD_NS, 60 * PERIOD_NS) == 0


def test_expects_nothing_nearer_than_what_is_at_hand() -> None:
    assert learned(50).until([49 * PERIOD_NS], 0, 49 * PERIOD_NS, 49 * PERIOD_NS + 20 * MS) == 0


def test_at_hand_counts_on_both_sides() -> None:
    patience = learned(50)
    frame_ns = 50 * PERIOD_NS
    assert patience.until([49 * PERIOD_NS, frame_ns], 0, frame_ns, frame_ns + 20 * MS) == 0


@given(st.lists(st.tuples(st.integers(0, 1 << 50), st.integers(0, 1 << 40), st.integers(0, 1 << 50)), max_size=30))
def test_any_deliveries_leave_a_sane_expectation(deliveries: list[tuple[int, int, int]]) -> None:
    patience = Patience(LIDAR)
    for stamp_ns, seq, now_ns in sorted(deliveries):
        patience.learn(stamp_ns, seq, now_ns)
        assert patience.delay_ns >= 0 and patience.period_ns >= 0
        until_ns = patience.until([stamp_ns], 0, stamp_ns + 5 * MS, now_ns)
        assert until_ns == 0 or until_ns >= now_ns
