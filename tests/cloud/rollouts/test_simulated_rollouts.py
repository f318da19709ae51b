"""Whole rollouts on simulated fleets, through fold and decide; ROADFUSE_LONG=1 takes twenty times as many."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import pytest

from cloud.rollouts.evidence import ACTIVE_ARM, SHADOW_ARM
from cloud.rollouts.orders import Promote, Stop
from cloud.rollouts.policy import Policy
from tests.cloud.rollouts.worlds import Rehearsed, World, rehearse

TIMES = 20 if os.environ.get("ROADFUSE_LONG") else 1
# Vehicles drive all day, so that a rehearsal is short.
POLICY = Policy.of_dict({
    "shadow": {"share": 0.3, "least_hours": 20, "each_hours": 0.5},
    "waves": [{"name": "canary", "share": 0.3}, {"name": "all"}],
    "tests": {"interval_s": 600},
})  # fmt: skip


def _rehearsed(count: int, hours: float = 24.0, **world: Any) -> list[Rehearsed]:
    known = {"vehicles": 40, "driving": 1.0, **world}
    return [rehearse(POLICY, World(**known, seed=seed), hours, keeps_log=True) for seed in range(count * TIMES)]


def _nearly_all(holds: Iterable[bool]) -> bool:
    """Chance may spoil one in twenty; of a few, none."""
    held = list(holds)
    return sum(held) >= 0.95 * len(held)


def _orders(found: Rehearsed, kind: type[Any]) -> list[Any]:
    return [order for one in found.log for order in one.ordered if isinstance(order, kind)]


@pytest.mark.parametrize(
    "world",
    [{}, {"unlike": 1.0}, {"rate_per_h": 0.0}, {"rate_per_h": 0.1, "burst_per_h": 0.05, "unlike": 1.0}],
    ids=["alike", "own rates", "no events", "bursts"],
)
def test_an_equal_release_is_not_stopped(world: dict[str, Any]) -> None:
    found = _rehearsed(2, **world)
    assert [one.stopped_h for one in found] == [None] * len(found)
    assert all(one.evidence.peak < 1e3 for one in found)


def test_an_equal_release_reaches_all_vehicles() -> None:
    found = _rehearsed(1, hours=72.0, rate_per_h=0.0)
    assert [one.evidence.state for one in found] == ["done"] * len(found)
    assert all(one.acted >= 36 for one in found)


@pytest.mark.parametrize("unlike", [0.0, 1.0])
def test_no_vehicle_ever_acts_on_a_release_that_is_five_times_worse(unlike: float) -> None:
    found = _rehearsed(3, hours=48.0, ratio=5.0, unlike=unlike)
    assert [one.acted for one in found] == [0] * len(found)
    assert _nearly_all("in the shadow" in one.evidence.why for one in found)  # others are held: 1 of 60


def test_what_the_shadow_does_not_show_the_canary_stops() -> None:
    for one in _rehearsed(2, hours=48.0, ratio=3.0, shadow_ratio=1.0):
        (stop,) = _orders(one, Stop)
        assert stop.record["comparisons"][0]["kind"] == ACTIVE_ARM and one.acted < 40
        assert stop.record["comparisons"][0]["ratio"] > 1.5


def test_a_regression_in_one_slice_is_stopped_for_that_slice() -> None:
    found = _rehearsed(2, hours=48.0, slices={"night": 0.3}, slice_ratios={"night": 6.0})
    assert [one.acted for one in found] == [0] * len(found)
    stops = [stop for one in found for stop in _orders(one, Stop)]
    assert len(stops) == len(found)
    assert _nearly_all("night" in {cell["slice"] for cell in stop.record["comparisons"][:2]} for stop in stops)


def test_vehicles_that_fall_silent_stop_the_release() -> None:
    for one in _rehearsed(2, hours=48.0, rate_per_h=0.0, falls_silent=0.9):
        assert one.evidence.state == "stopped" and one.acted <= 12
        assert "failed to take the release" in one.evidence.why and one.evidence.acting.failed > 3


def test_a_release_that_many_vehicles_refuse_goes_no_further() -> None:
    found = _rehearsed(3, hours=12.0, refuses=0.8)
    assert [one.acted for one in found] == [0] * len(found)
    assert _nearly_all("failed to take the release" in one.evidence.why for one in found)


def test_a_promotion_keeps_what_it_rested_on() -> None:
    (found, *_) = _rehearsed(1, hours=48.0, rate_per_h=0.0)
    first, second, *_ = _orders(found, Promote)
    assert first.record["e_value"] is None and first.record["gates"] == {"golden": ["passed", ""]}
    assert second.record["e_value"] >= second.record["needed"] == pytest.approx(20.0)
    (cell,) = [
        one
        for one in second.record["comparisons"]
        if (one["kind"], one["metric"], one["slice"]) == (SHADOW_ARM, "failure", "all")
    ]
    assert cell["e_value_for"] == second.record["e_value"] and cell["treated"] == 0
    assert second.record["exposed_h"]["shadow/all"] >= 20.0
    assert "refuted" in second.record["hypothesis"] and second.record["approved_by"] == ""
