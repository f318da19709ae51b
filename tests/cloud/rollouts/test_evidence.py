"""Evidence: what observations amount to, whatever order they come in, and as JSON."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest

from cloud.errors import RolloutError
from cloud.rollouts import orders, weighing
from cloud.rollouts.comparison import Exposure, Spread, phi_of_arms
from cloud.rollouts.editions import EDITIONS
from cloud.rollouts.evidence import (
    APPROVE,
    PAUSE,
    START,
    Command,
    Evidence,
    GateResult,
    Increment,
    Judged,
    Observation,
    VehicleReport,
    begin,
)
from cloud.rollouts.policy import Policy
from cloud.rollouts.rules import fold
from roadfuse.v1.updates_pb2 import Mode, Stage
from tests.cloud.rollouts.worlds import World, rehearse

POLICY = Policy.of_dict({"tests": {"interval_s": 60, "cap": 2}, "silence": {"after_s": 300}})
NEW, OLD = "new", "old"


def _begun(policy: Policy = POLICY) -> Evidence:
    evidence = begin(policy, "r1", NEW, 3, ("x86",))
    return fold(evidence, Observation(0.0, commands=(Command(START, "ann"),), gates=(GateResult("golden", "passed"),)))


def _driving(vehicle: str, seen_s: float, **more: object) -> VehicleReport:
    return VehicleReport(vehicle, "x86", state="driving", active=OLD, seen_s=seen_s, **more)  # type: ignore[arg-type]


def _closed(evidence: Evidence, *observations: Observation, at_s: float = 60.0) -> Evidence:
    for one in observations:
        evidence = fold(evidence, one)
    return fold(evidence, Observation(at_s))


def test_observations_and_evidence_survive_json() -> None:
    observation = Observation(
        5.0,
        (_driving("a", 4.0, labels={"site": "yard"}),),
        (Increment("a", NEW, True, "all", 10.0, 100, {"late": 1}),),
        (Judged("a", ("night",), 2, 1),),
        (Command(APPROVE, "ann", wave=2),),
        (GateResult("replay", "skipped", "no drives"),),
        (orders.Assign("a", 1, 0), orders.Promote(1, {"e": 2.0}), orders.Stop("bad", {"x": [1]})),
        ("orin",),
    )
    assert Observation.of_dict(json.loads(json.dumps(observation.to_dict()))) == observation
    evidence = fold(_begun(), observation)
    assert Evidence.of_dict(json.loads(json.dumps(evidence.to_dict()))) == evidence


def test_evidence_of_a_whole_rehearsal_survives_json_and_goes_on_alike() -> None:
    found = rehearse(Policy.of_dict({"tests": {"interval_s": 900}}), World(80, slices={"night": 0.4}, unlike=1.0), 20)
    evidence = found.evidence
    again = Evidence.of_dict(json.loads(json.dumps(evidence.to_dict())))
    assert again == evidence
    further = Observation(evidence.at_s + 5_000, (_driving("car-00001", evidence.at_s),))
    assert json.dumps(fold(again, further).to_dict()) == json.dumps(fold(evidence, further).to_dict())


@pytest.mark.parametrize("values", [{}, {"rollout": "r"}, {"policy": {"x": 1}, "hardware": []}])
def test_what_is_no_evidence_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(RolloutError, match="expected"):
        Evidence.of_dict(values)
    with pytest.raises(RolloutError, match="expected an observation"):
        Observation.of_dict(values)
    with pytest.raises(RolloutError, match="expected an order"):
        orders.of_dict(values)


def test_the_order_within_an_interval_does_not_matter() -> None:
    rng = random.Random(4)
    parts: list[Observation] = []
    for number in range(40):
        name = f"v{number % 7}"
        parts.append(Observation(1.0 + number, (_driving(name, float(number), stage=number % 5),)))
        increment = Increment(
            name, NEW if number % 3 else OLD, number % 3 == 1, "all", 0.1 + number / 7, 1, {"late": number % 2}
        )
        parts.append(Observation(1.0 + number, increments=(increment,)))
        parts.append(Observation(1.0 + number, judged=(Judged(name, ("rain",), number % 3, 1),)))
    first = _closed(_begun(), *parts)
    assert first.comparisons
    for _ in range(5):
        rng.shuffle(parts)
        again = _closed(_begun(), *parts)
        assert again == first
        assert json.dumps(again.to_dict(), sort_keys=True) == json.dumps(first.to_dict(), sort_keys=True)


def test_folding_changes_nothing_that_was_given() -> None:
    evidence = fold(_begun(), Observation(1.0, (_driving("a", 1.0),), (Increment("a", OLD, False, "all", 30.0),)))
    before = json.dumps(evidence.to_dict())
    _closed(evidence, Observation(2.0, (_driving("a", 2.0),), (Increment("a", NEW, False, "all", 30.0),)))
    assert json.dumps(evidence.to_dict()) == before


def test_counts_of_one_vehicle_in_one_interval_are_capped() -> None:
    told = (
        Increment("a", NEW, False, "all", 30.0, 0, {"late": 50}),
        Increment("b", OLD, False, "all", 30.0, 0, {"late": 1}),
    )
    evidence = _closed(_begun(), Observation(1.0, (_driving("a", 1.0), _driving("b", 1.0)), told))
    one = evidence.comparisons["active/late/all"]
    assert (one.treated, one.control) == (2, 1)


def test_a_backlog_of_many_intervals_may_count_as_often() -> None:
    told = (Increment("a", NEW, False, "all", 600.0, 0, {"late": 50}),)
    evidence = _closed(_begun(), Observation(1.0, (_driving("a", 1.0),), told))
    assert evidence.comparisons["active/late/all"].treated == 20


def test_vehicles_that_are_not_concerned_do_not_count() -> None:
    strange = replace(_driving("a", 1.0), hardware="orin")
    told = (Increment("a", NEW, False, "all", 30.0, 0, {"late": 1}), Increment("x", NEW, False, "all", 30.0))
    evidence = _closed(_begun(), Observation(1.0, (strange,), told))
    assert not evidence.exposed


def test_who_acted_on_the_release_once_is_no_control_any_more() -> None:
    one = _closed(_begun(), Observation(1.0, (_driving("a", 1.0),), (Increment("a", NEW, False, "all", 30.0),)))
    after = _closed(one, Observation(61.0, increments=(Increment("a", OLD, False, "all", 30.0),)), at_s=120.0)
    assert "old/all" not in after.exposed and after.exposed["active/all"].hours == pytest.approx(30 / 3600)


def _of_unlike_vehicles(tests: dict[str, object], acted: bool = False) -> Evidence:
    """Vehicles a0 .. a9, of which the odd ones count six times an interval, then the first wave, then an interval."""
    policy = replace(POLICY, tests=Policy.of_dict({"tests": {"interval_s": 60, "cap": 9} | tests}).tests)
    names = [f"a{n}" for n in range(10)]
    evidence = fold(_begun(policy), Observation(1.0, tuple(_driving(name, 1.0) for name in names)))
    for minute in range(6):
        told = [Increment(name, OLD, False, "all", 60.0, 0, {"late": 6 * (n % 2)}) for n, name in enumerate(names)]
        if acted:
            told[8] = replace(told[8], bundle=NEW)
        at_s = 60.0 * minute + 2
        evidence = fold(evidence, Observation(at_s, tuple(_driving(name, at_s) for name in names), tuple(told)))
    evidence = fold(evidence, Observation(360.0, ordered=(orders.Promote(1, {}),)))
    told = [Increment(name, NEW if n < 2 else OLD, False, "all", 60.0, 0, {"late": 1}) for n, name in enumerate(names)]
    return _closed(evidence, Observation(361.0, increments=tuple(told)), at_s=420.0)


def _of(spread: Spread) -> tuple[tuple[float, float, float], Exposure]:
    return spread.sums, spread.exposure


def test_from_the_first_wave_on_vehicles_are_compared_by_what_each_counted_before() -> None:
    evidence = _of_unlike_vehicles({})
    own = evidence.expected["failure"]
    assert set(evidence.expected) == {"failure"} and set(own) == {f"a{n}" for n in range(10)}
    assert own["a1"] == pytest.approx(2.0, rel=0.05) and own["a0"] == pytest.approx(0.0, abs=0.06)
    treated, control = (evidence.spreads[f"{arm}/failure/all"] for arm in ("active", "old"))
    assert treated.exposure.hours == pytest.approx((own["a0"] + own["a1"]) / 60)
    assert (treated.n, control.n) == (2, 8) and control.exposure.vehicles == 8
    assert control.hours_squares == pytest.approx(8 / 60**2)
    mixture = EDITIONS[evidence.policy.tests.edition].worse
    by_hours, own_way = (evidence.comparisons[f"{kind}/failure/all"] for kind in ("active", "own"))
    phi = phi_of_arms(*_of(treated), *_of(control), squares=(treated.hours_squares, control.hours_squares))
    cell = weighing.cell(evidence, "active", "failure")
    both = by_hours.against(cell.phi, mixture), own_way.against(phi, mixture)
    assert both[0] != both[1] and cell.against == pytest.approx(sum(both) / 2)
    assert evidence.exposed["active/all"].hours == pytest.approx(2 / 60)  # hours are hours for all else
    assert Evidence.of_dict(json.loads(json.dumps(evidence.to_dict()))) == evidence


@pytest.mark.parametrize(("tests", "acted"), [({"edition": 1}, False), ({}, True)])
def test_nothing_is_expected_of_vehicles_by_the_first_edition_or_once_one_had_acted(
    tests: dict[str, object], acted: bool
) -> None:
    evidence = _of_unlike_vehicles(tests, acted)
    assert not evidence.expected and not evidence.spreads


def test_the_shadow_is_compared_with_the_same_vehicle_alone() -> None:
    told = (
        Increment("a", NEW, True, "all", 30.0, 0, {"late": 1}),
        Increment("a", OLD, False, "all", 30.0),
        Increment("b", OLD, False, "all", 30.0, 0, {"late": 2}),
    )
    evidence = _closed(_begun(), Observation(1.0, (_driving("a", 1.0), _driving("b", 1.0)), told))
    assert evidence.exposed["beside/all"].hours == pytest.approx(30 / 3600)
    assert (evidence.comparisons["shadow/late/all"].treated, evidence.comparisons["shadow/late/all"].control) == (1, 0)
    assert evidence.exposed["old/all"].vehicles == 2  # both are what acting vehicles are compared with


def test_vehicles_are_compared_within_their_hardware_and_filters() -> None:
    policy = Policy.of_dict({"waves": [{"name": "lab", "where": 'label.site = "lab"'}, {"name": "all"}]})
    policy = replace(policy, tests=POLICY.tests)
    here, there = _driving("a", 1.0, labels={"site": "lab"}), _driving("b", 1.0)
    told = (
        Increment("a", NEW, False, "all", 30.0, 0, {"late": 1}),
        Increment("b", OLD, False, "all", 30.0, 0, {"late": 1}),
    )
    evidence = _closed(_begun(policy), Observation(1.0, (here, there), told))
    one = evidence.comparisons["active/late/all"]
    assert (one.treated, one.control) == (1, 1) and set(one.stop) == {0.0}


def _ordered(evidence: Evidence, vehicle: str, at_s: float) -> Evidence:
    return fold(evidence, Observation(at_s, ordered=(orders.Assign(vehicle, Mode.MODE_ACTIVATE, 1),)))


def test_silence_while_driving_counts_as_failure_but_parked_or_announced_does_not() -> None:
    reports = tuple(replace(_driving(name, 1.0), state=name) for name in ("driving", "parked", "offline"))
    gone = replace(_driving("gone", 1.0), state="driving")
    others = tuple(_driving(f"old{n}", 3_000.0) for n in range(20))
    evidence = fold(
        _begun(), Observation(1.0, (*tuple(replace(one, vehicle=one.state) for one in reports), gone, *others))
    )
    for name in ("driving", "parked", "offline", "gone"):
        evidence = _ordered(evidence, name, 1.0)
    evidence = fold(evidence, Observation(2.0, (replace(gone, state="gone", seen_s=2.0),)))
    evidence = fold(evidence, Observation(400.0))
    failed = {name for name, one in evidence.vehicles.items() if one.failed_s is not None}
    assert failed == {"driving", "gone"}
    assert "silent" in evidence.vehicles["gone"].failed_why
    assert evidence.acting.failed == 2 and evidence.comparisons["active/silent/all"].treated == 2


def test_a_vehicle_that_was_silent_and_comes_back_goes_on_but_stays_counted() -> None:
    others = tuple(_driving(f"old{n}", 3_000.0) for n in range(20))
    evidence = _ordered(fold(_begun(), Observation(1.0, (_driving("a", 1.0), *others))), "a", 1.0)
    evidence = fold(evidence, Observation(400.0))
    assert evidence.vehicles["a"].failed_s is not None
    back = replace(_driving("a", 410.0), active=NEW, stage=int(Stage.STAGE_IDLE))
    evidence = fold(fold(evidence, Observation(410.0, (back,))), Observation(500.0))
    one = evidence.vehicles["a"]
    assert one.failed_s is None and one.settled == Mode.MODE_ACTIVATE
    assert (evidence.acting.tried, evidence.acting.failed) == (1, 1)


def test_where_the_network_is_away_for_all_silence_is_not_held_against_the_release() -> None:
    reports = tuple(_driving(f"v{n}", 1.0) for n in range(40))
    evidence = fold(_begun(), Observation(1.0, reports))
    for number in range(10):
        evidence = _ordered(evidence, f"v{number}", 1.0)
    evidence = fold(evidence, Observation(400.0))
    assert evidence.acting.failed == 10 and evidence.acting.against() < 1.1


def test_a_refusal_counts_once_and_a_success_only_when_it_runs() -> None:
    evidence = _ordered(fold(_begun(), Observation(1.0, (_driving("a", 1.0), _driving("b", 1.0)))), "a", 2.0)
    evidence = _ordered(evidence, "b", 2.0)
    probation = replace(_driving("b", 70.0), active=NEW, stage=int(Stage.STAGE_PROBATION))
    refused = _driving("a", 70.0, stage=int(Stage.STAGE_REFUSED), refused=NEW, why="self-test failed")
    evidence = _closed(evidence, Observation(70.0, (refused, probation)), at_s=120.0)
    assert (evidence.acting.tried, evidence.acting.failed) == (1, 1)
    assert evidence.vehicles["a"].failed_why == "self-test failed"
    evidence = _closed(
        evidence, Observation(130.0, (replace(probation, seen_s=130.0, stage=int(Stage.STAGE_IDLE)),)), at_s=180
    )
    evidence = fold(evidence, Observation(240.0))
    assert (evidence.acting.tried, evidence.acting.failed) == (2, 1)


@pytest.mark.parametrize(("until", "failed"), [(2, 0), (3, 1), (0, 1)])
def test_a_refusal_of_an_earlier_release_of_the_bundle_is_none_of_this_one(until: int, failed: int) -> None:
    evidence = _ordered(fold(_begun(), Observation(1.0, (_driving("a", 1.0),))), "a", 2.0)
    said = _driving("a", 70.0, stage=int(Stage.STAGE_REFUSED), refused=NEW, refused_until=until, why="stopped")
    evidence = _closed(evidence, Observation(70.0, (said,)), at_s=120.0)
    assert evidence.acting.failed == failed


def test_a_clock_that_goes_back_closes_nothing_twice() -> None:
    evidence = fold(_begun(), Observation(600.0))
    assert fold(evidence, Observation(30.0)).at_s == 600.0


def test_commands_are_kept_with_their_time() -> None:
    evidence = fold(_begun(), Observation(7.0, commands=(Command(PAUSE, "bob", "looks odd"),)))
    assert evidence.state == "paused" and evidence.said[-1] == (7.0, Command(PAUSE, "bob", "looks odd"))
