"""The ladder climbs when frames take too long, comes down when they do not, and does not oscillate."""

from __future__ import annotations

import pickle

from hypothesis import given
from hypothesis import strategies as st

from edge.overload import FRAMES_TO_DESCEND, LAST_LEVEL, LAST_LEVEL_STRIDE, OverloadLadder

PERIOD_NS = 50_000_000


def test_one_slow_frame_changes_nothing_two_climb_one_level() -> None:
    ladder = OverloadLadder()
    ladder.observe(60_000_000, 0, PERIOD_NS)
    assert ladder.level == 0
    ladder.observe(60_000_000, 0, PERIOD_NS)
    assert ladder.level == 1


def test_a_backlog_goes_to_the_last_level_at_once() -> None:
    ladder = OverloadLadder()
    ladder.observe(0, 3 * PERIOD_NS, PERIOD_NS)
    assert ladder.level == LAST_LEVEL


def test_it_comes_down_after_a_calm_while_and_waits_longer_after_each_failed_try() -> None:
    ladder = OverloadLadder()
    waits = []
    for _ in range(4):
        while ladder.level == 0:
            ladder.observe(60_000_000, 0, PERIOD_NS)
        frames = 0
        while ladder.level:
            ladder.observe(1_000_000, 0, PERIOD_NS)
            frames += 1
        waits.append(frames)
    assert waits[0] >= FRAMES_TO_DESCEND
    assert waits == sorted(waits)
    assert waits[-1] > waits[0]


def test_the_freshest_embedding_is_shed_first_and_none_starves() -> None:
    for level in range(1, LAST_LEVEL + 1):
        ladder = OverloadLadder()
        ladder.level = level
        ages = [0, 0, 0]
        last_run = [0, 0, 0]
        for index in range(200):
            shed = ladder.shed(ages, index)
            kept_ages = [ages[i] for i in range(3) if i not in shed]
            assert all(ages[i] <= age for i in shed for age in kept_ages)
            for i in range(3):
                ages[i] = ages[i] + 1 if i in shed else 0
                last_run[i] = last_run[i] if i in shed else index
        assert min(last_run) >= 200 - 4 * LAST_LEVEL_STRIDE


def test_full_service_sheds_nothing() -> None:
    assert OverloadLadder().shed([0, 3, 1], 7) == frozenset()


@given(st.lists(st.tuples(st.integers(0, 200_000_000), st.integers(0, 400_000_000)), max_size=300), st.data())
def test_the_same_frames_climb_the_same_steps_also_when_frozen_between(
    frames: list[tuple[int, int]], data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, len(frames)))
    plain, frozen = OverloadLadder(), OverloadLadder()
    for number, (elapsed_ns, late_ns) in enumerate(frames):
        if number == cut:
            frozen = pickle.loads(pickle.dumps(frozen))
        plain.observe(elapsed_ns, late_ns, PERIOD_NS)
        frozen.observe(elapsed_ns, late_ns, PERIOD_NS)
        assert plain.level == frozen.level
        assert 0 <= plain.level <= LAST_LEVEL
