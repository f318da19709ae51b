"""Hardness and its reasons."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edge.decision import Score, Tag
from edge.judge import Judge
from edge.samples import VehicleState

UNIT = st.floats(0, 1)
EASY = (0.0, 0.0, 0.0)


def by_name(scores: tuple[Score, ...]) -> dict[str, float]:
    return {score.name: score.value for score in scores}


def test_an_easy_frame_is_not_hard() -> None:
    assert Judge()(0, EASY, (), (), (), 0.0)[0] == 0.0


@given(UNIT, UNIT, UNIT, UNIT, UNIT)
def test_hardness_is_between_the_largest_part_and_one(
    a: float, b: float, c: float, siren: float, missing: float
) -> None:
    hardness, scores = Judge()(0, (a, b, c), (), (Tag("siren", siren),), (), missing)
    parts = [score.value * score.weight for score in scores]
    assert parts == sorted(parts, reverse=True)
    assert max(parts) - 1e-9 <= hardness <= 1.0


def test_hard_braking_and_sirens_are_named() -> None:
    braking = VehicleState(0, 0, 10.0, acceleration_mps2=-6.0)
    _, scores = Judge()(0, EASY, (), (Tag("siren", 0.9), Tag("rain", 1.0)), (braking,), 0.0)
    assert by_name(scores)["braking"] == 1.0
    assert by_name(scores)["alarm"] == 0.9


def test_gentle_braking_is_no_event() -> None:
    gentle = VehicleState(0, 0, 10.0, acceleration_mps2=-1.5)
    assert by_name(Judge()(0, EASY, (), (), (gentle,), 0.0)[1])["braking"] == 0.0


def test_a_takeover_counts_for_two_seconds() -> None:
    judge = Judge()
    seen = []
    for second in range(5):
        state = VehicleState(second, second, 10.0, driver_in_control=second >= 1)
        seen.append(by_name(judge(second * 10**9, EASY, (), (), (state,), 0.0)[1])["takeover"])
    assert seen == [0.0, 1.0, 1.0, 1.0, 0.0]


def test_flicker_is_the_largest_change_of_a_tag() -> None:
    judge = Judge()
    judge(0, EASY, (Tag("night", 0.1), Tag("rain", 0.5)), (), (), 0.0)
    _, scores = judge(1, EASY, (Tag("night", 0.9), Tag("rain", 0.4)), (), (), 0.0)
    assert abs(by_name(scores)["flicker"] - 0.8) < 1e-9


def test_a_thawed_judge_remembers() -> None:
    judge, other = Judge(), Judge()
    judge(0, EASY, (Tag("night", 0.1),), (), (VehicleState(0, 0, 1.0, driver_in_control=False),), 0.0)
    other.thaw(judge.freeze())
    state = (VehicleState(1, 1, 1.0, driver_in_control=True),)
    assert judge(1, EASY, (Tag("night", 0.7),), (), state, 0.0) == other(1, EASY, (Tag("night", 0.7),), (), state, 0.0)
