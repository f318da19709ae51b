"""A simulated vehicle: its habits are what the scenario says, and its update agent keeps the real one's rules."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.errors import RolloutError
from cloud.fleet.policy import hastened
from cloud.fleet.scenario import HOUR_S, Plant, Scenario
from cloud.fleet.vehicle import Vehicle, Wish
from cloud.rollouts.policy import Policy, Wave
from edge.updates.evidence import ALL, BETTER, FAILURES, WORSE
from roadfuse.v1.updates_pb2 import Mode, Stage

FIRST, NEW = "first", "new"
HOURS = 40
STEADY = Scenario(vehicles=60, heartbeat_s=300.0)


def lived(scenario: Scenario = STEADY, plant: Plant | None = None, mode: int = Mode.MODE_ACTIVATE) -> list[Vehicle]:
    """A fleet after HOURS hours with a wish for a release."""
    plants = {NEW: plant or Plant()}
    fleet = [Vehicle(scenario, number, FIRST, plants, 0.0) for number in range(scenario.vehicles)]
    for vehicle in fleet:
        vehicle.told(Wish(NEW, 2, mode, "r"))
        while vehicle.wake_s <= HOURS * HOUR_S:
            vehicle.advance(vehicle.wake_s)
    return fleet


def rate(fleet: list[Vehicle], bundle: str, slice_name: str = ALL, *, is_shadow: bool = False) -> float:
    """Failures an hour."""
    found = [one for vehicle in fleet for one in vehicle.evidence if (one.bundle, one.is_shadow) == (bundle, is_shadow)]
    counts = [one.slices[slice_name] for one in found if slice_name in one.slices]
    failures = sum(count.counts.get(metric, 0) for count in counts for metric in FAILURES)
    return failures / (sum(count.seconds for count in counts) / HOUR_S)


def test_vehicles_drive_as_long_and_fail_as_often_as_the_scenario_says() -> None:
    fleet = lived(mode=Mode.MODE_SHADOW)
    driven_h = sum(one.slices[ALL].seconds for car in fleet for one in car.evidence if not one.is_shadow) / HOUR_S
    share = STEADY.drive_h / (STEADY.drive_h + STEADY.parked_h)
    assert driven_h / (HOURS * len(fleet)) == pytest.approx(share, rel=0.2)
    assert rate(fleet, FIRST) == pytest.approx(STEADY.failures_per_h, rel=0.3)


def test_a_planted_fault_shows_in_its_slices_alone() -> None:
    fleet = lived(plant=Plant(failures=6.0, slices=("night",)))
    assert rate(fleet, NEW, "night") > 3 * rate(fleet, FIRST, "night")
    both = rate(fleet, NEW)
    assert rate(fleet, FIRST) < both < rate(fleet, NEW, "night")


def test_a_release_that_is_wrong_more_often_loses_its_pairs() -> None:
    def odds(plant: Plant) -> float:
        counts = [
            one.slices[ALL].counts for car in lived(plant=plant, mode=Mode.MODE_SHADOW) for one in car.evidence
            if one.is_shadow
        ]  # fmt: skip
        return sum(one.get(WORSE, 0) for one in counts) / sum(one.get(BETTER, 0) for one in counts)

    assert odds(Plant()) == pytest.approx(1.0, rel=0.1)
    assert odds(Plant(wrong=5.0)) == pytest.approx(5.0, rel=0.2)


def test_nobody_acts_on_a_release_that_may_only_be_shadowed() -> None:
    fleet = lived(mode=Mode.MODE_SHADOW)
    assert all(not vehicle.acted and vehicle.slots.active.bundle == FIRST for vehicle in fleet)
    assert any(vehicle.slots.stage == Stage.STAGE_SHADOWING for vehicle in fleet)


def test_a_stop_puts_the_former_bundle_back_and_the_release_does_not_return() -> None:
    fleet = lived()
    running = [vehicle for vehicle in fleet if vehicle.slots.active.bundle == NEW]
    assert running
    for vehicle in running:
        assert vehicle.stop(frozenset({NEW}))
        assert vehicle.slots.active.bundle == FIRST
        vehicle.told(Wish(NEW, 1, Mode.MODE_ACTIVATE, "r"))
        assert vehicle.slots.staged is None


def test_who_falls_silent_says_nothing_more() -> None:
    fleet = lived(plant=Plant(silent=1.0))
    assert all(vehicle.state == "gone" and not vehicle.is_linked for vehicle in fleet if vehicle.acted)


def test_the_same_seed_lives_the_same_life() -> None:
    first, second = (
        [(car.reported(), [one.message() for one in car.evidence]) for car in lived(Scenario(vehicles=5))]
        for _ in range(2)
    )
    assert first == second


@given(st.text(max_size=40))
def test_planted_words_are_taken_or_refused_in_one_line(words: str) -> None:
    try:
        Plant.of(words)
    except RolloutError as error:
        assert "expected" in str(error) and "\n" not in str(error)


@pytest.mark.parametrize("values", [{"vehicles": 0}, {"speed": 0.0}, {"drive_h": float("inf")}])
def test_a_scenario_that_makes_no_sense_is_refused(values: dict[str, float]) -> None:
    with pytest.raises(RolloutError, match="expected"):
        Scenario(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "said", ['{"regions": 3}', '{"regions": []}', '{"slices": [1, 2]}', '{"seed": "x"}', "[]", "{"]
)
def test_a_scenario_file_that_makes_no_sense_is_refused_in_one_line(said: str, tmp_path: Path) -> None:
    (tmp_path / "scenario.json").write_text(said)
    with pytest.raises(RolloutError, match="expected") as error:
        Scenario.read(tmp_path / "scenario.json")
    assert "\n" not in str(error.value)


def test_a_rehearsal_waits_for_nobodys_approval_and_says_so() -> None:
    policy, notes = hastened(Policy(waves=(Wave("all", needs_approval=True),)), 60.0)
    assert not policy.waves[0].needs_approval and any("approvals" in note for note in notes)
    assert not any("approvals" in note for note in hastened(policy, 60.0)[1])
