"""The rules of a rollout: what is ordered when, and what never is."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloud.rollouts import lots
from cloud.rollouts.evidence import (
    ABORT,
    APPROVE,
    PAUSE,
    RESUME,
    RETRY,
    START,
    STOP,
    Command,
    Evidence,
    GateResult,
    Increment,
    Judged,
    Observation,
    VehicleReport,
    begin,
)
from cloud.rollouts.filters import compiled
from cloud.rollouts.orders import AskApproval, Assign, Finish, GoOn, Hold, Order, Promote, Stop, Withdraw
from cloud.rollouts.policy import Policy
from cloud.rollouts.rules import decide, fold, waits_for
from cloud.rollouts.stages import stages
from roadfuse.v1.updates_pb2 import Mode, Stage
from tests.cloud.rollouts.worlds import World, rehearse

NEW, OLD = "new", "old"
SHADOW, ACTIVATE = int(Mode.MODE_SHADOW), int(Mode.MODE_ACTIVATE)
# So quick that a few steps go through all of it: 1 event-free hour speaks for the release.
QUICK: dict[str, Any] = {
    "seed": "s",
    "shadow": {"share": 0.2, "least_hours": 1.0, "each_hours": 0.1},
    "waves": [{"name": "canary", "share": 0.3, "least_hours": 1.0}, {"name": "all", "least_hours": 0.0}],
    "control": {"share": 0.2},
    "tests": {"interval_s": 300, "tolerable_per_hour": 50.0},
}


@dataclass
class Drive:
    """Ten vehicles that drive all the time and obey; each `hour` is one step of the evidence."""

    policy: Policy
    count: int = 10
    now_s: float = 0.0
    counts: Any = None

    def __post_init__(self) -> None:
        self.evidence: Evidence = begin(self.policy, "r", NEW, 2, ())
        self.given: list[Order] = []
        self.states: dict[str, VehicleReport] = {
            f"v{n}": VehicleReport(f"v{n}", "x86", state="driving", active=OLD, stage=int(Stage.STAGE_IDLE))
            for n in range(self.count)
        }

    def start(self) -> Drive:
        self.say(Command(START, "ann"))
        self.fold(Observation(self.now_s, gates=(GateResult("golden", "passed"),)))
        return self

    def say(self, *commands: Command) -> None:
        self.fold(Observation(self.now_s, commands=commands))

    def fold(self, observation: Observation) -> None:
        self.evidence = fold(self.evidence, observation)

    def decide(self) -> tuple[Order, ...]:
        return decide(self.policy, self.evidence, self.now_s)

    def obey(self) -> list[Order]:
        """Until nothing more is ordered."""
        found: list[Order] = []
        for _ in range(20):
            orders = self.decide()
            if not orders:
                break
            found += orders
            self.fold(Observation(self.now_s, ordered=orders))
            for order in orders:
                if isinstance(order, Assign) and order.vehicle in self.states:
                    known = self.states[order.vehicle]
                    staged = {"staged": NEW, "stage": int(Stage.STAGE_SHADOWING)}
                    taken = {"active": NEW, "staged": "", "stage": int(Stage.STAGE_CONFIRMED)}
                    self.states[order.vehicle] = replace(known, **(staged if order.mode == SHADOW else taken))  # type: ignore[arg-type]
        self.given += found
        return found

    def hours(self, hours: float = 0.5, away: tuple[str, ...] = ()) -> list[Order]:
        self.now_s += hours * 3_600
        reports, increments = [], []
        for name, known in self.states.items():
            if name in away:
                continue
            known = self.states[name] = replace(known, seen_s=self.now_s)
            reports.append(known)
            seconds = hours * 3_600
            increments.append(Increment(name, known.active, False, "all", seconds))
            if known.staged == NEW:
                increments.append(Increment(name, NEW, True, "all", seconds, 0, self.counts or {}))
        self.fold(Observation(self.now_s - 1, tuple(reports), tuple(increments)))
        self.fold(Observation(self.now_s + 300))
        self.now_s += 300
        return self.obey()

    def through(self, hours: float = 30) -> list[Order]:
        return [order for _ in range(int(hours * 2)) for order in self.hours()]


def _drive(count: int = 10, **changes: Any) -> Drive:
    drive = Drive(Policy.of_dict({**QUICK, **changes}), count)
    drive.fold(Observation(0.0, tuple(drive.states.values())))
    return drive.start()


def _assigned(orders: list[Order], mode: int) -> list[str]:
    return [one.vehicle for one in orders if isinstance(one, Assign) and one.mode == mode]


def test_a_good_release_goes_through_shadow_canary_waves_and_those_held_back() -> None:
    drive = _drive()
    orders = drive.obey() + drive.through()
    assert [one.wave for one in orders if isinstance(one, Promote)] == [0, 1, 2, 3]
    assert isinstance(orders[-1], Finish) and drive.evidence.state == "done"
    assert sorted(_assigned(orders, ACTIVATE)) == sorted(drive.states)
    held = [name for name in drive.states if lots.is_held_back("s", name, 0.2)]
    last = orders.index(next(one for one in orders if isinstance(one, Promote) and one.wave == 3))
    assert held and not set(held) & {one.vehicle for one in orders[:last] if isinstance(one, Assign)}
    assert decide(drive.policy, drive.evidence, drive.now_s + 1e6) == ()


def test_nothing_begins_before_a_start_or_without_gates() -> None:
    drive = Drive(Policy.of_dict(QUICK))
    drive.fold(Observation(0.0, tuple(drive.states.values()), gates=(GateResult("golden", "passed"),)))
    assert drive.decide() == () and waits_for(drive.policy, drive.evidence, 0.0) == ("a start",)
    drive = Drive(Policy.of_dict(QUICK))
    drive.say(Command(START, "ann"))
    assert drive.decide() == (Hold("no gate has given its verdict"),)


@pytest.mark.parametrize(
    ("gate", "goes"),
    [
        (GateResult("replay", "skipped", "no drives"), True),
        (GateResult("golden", "skipped", "no time"), False),
        (GateResult("golden", "refused", "differs"), False),
        (GateResult("golden", "", ""), False),
    ],
)
def test_a_gate_holds_unless_it_passed_or_may_be_skipped(gate: GateResult, goes: bool) -> None:
    drive = _drive()
    drive.fold(Observation(0.0, gates=(gate,)))
    orders = drive.obey()
    assert any(isinstance(one, Promote) for one in orders) is goes
    if not goes:
        assert isinstance(orders[0], Hold) and gate.gate in orders[0].why and drive.obey() == []
        drive.fold(Observation(0.0, gates=(GateResult(gate.gate, "passed"),)))
        assert isinstance(drive.obey()[0], GoOn)


def test_orders_repeat_until_they_are_carried_out_and_not_after() -> None:
    drive = _drive()
    first = drive.decide()
    assert first == drive.decide() and isinstance(first[0], Promote)
    drive.fold(Observation(0.0, ordered=first))
    second = drive.decide()
    assert second == drive.decide() and all(isinstance(one, Assign) for one in second)
    drive.fold(Observation(0.0, ordered=second[:1]))
    assert drive.decide() == second[1:]


def test_a_release_that_fails_in_the_shadow_is_stopped_and_nobody_acts_on_it() -> None:
    drive = _drive(tests={"interval_s": 300}, shadow={"share": 1.0, "least_hours": 1.0})
    drive.counts = {"late": 30}
    drive.obey()
    orders = drive.through(40)
    assert isinstance(orders[-1], Stop) and not _assigned(drive.given, ACTIVATE)
    record = orders[-1].record
    assert record["e_value"] >= record["needed"] == pytest.approx(1e3) and record["comparisons"][0]["kind"] == "shadow"
    assert json.loads(json.dumps(record)) == record
    assert drive.evidence.state == "stopped" and not any(one.mode for one in drive.evidence.vehicles.values())
    assert drive.obey() == []


@pytest.mark.parametrize(("worse", "better", "is_stopped"), [(60, 20, True), (6, 2, True), (20, 20, False)])
def test_a_release_that_is_wrong_where_the_active_one_is_right_is_stopped(
    worse: int, better: int, is_stopped: bool
) -> None:
    drive = _drive(tests={"interval_s": 300}, shadow={"share": 1.0, "least_hours": 1e5})
    drive.counts = {"worse": worse, "better": better}
    drive.obey()
    drive.through(40)
    assert (drive.evidence.state == "stopped") == is_stopped and not _assigned(drive.given, ACTIVATE)
    drawn = drive.evidence.comparisons["paired/worse/all"]
    assert drawn.treated / (drawn.treated + drawn.control) == pytest.approx(worse / (worse + better), abs=0.06)


def test_a_release_that_decides_quite_otherwise_waits_for_the_bigger_models_word_or_a_persons() -> None:
    drive = _drive()
    drive.counts = {"differs": 900, "same": 100}
    drive.obey()
    drive.through(6)
    assert not _assigned(drive.given, ACTIVATE) and drive.evidence.state == "running"
    assert any(
        "they differ on 90% of all frames" in one for one in waits_for(drive.policy, drive.evidence, drive.now_s)
    )
    drive.say(Command(APPROVE, "ann", wave=1))
    drive.through(6)
    assert _assigned(drive.given, ACTIVATE)


def test_judged_pairs_let_a_release_go_on_that_decides_quite_otherwise() -> None:
    drive = _drive()
    drive.counts = {"differs": 900, "same": 100}
    drive.obey()
    drive.through(6)
    for _ in range(60):
        drive.fold(Observation(drive.now_s, judged=tuple(Judged(name, (), 0, 1) for name in drive.states)))
        drive.hours()
    assert _assigned(drive.given, ACTIVATE)


def test_the_shadow_lasts_as_long_as_it_has_to() -> None:
    drive = _drive(shadow={"share": 0.2, "least_hours": 1.0, "each_hours": 0.1, "least_duration_h": 9.0})
    drive.obey()
    drive.through(7)
    assert not _assigned(drive.given, ACTIVATE)
    assert any("h more of the shadow" in one for one in waits_for(drive.policy, drive.evidence, drive.now_s))
    drive.through(3)
    assert _assigned(drive.given, ACTIVATE)


def test_each_vehicle_shadows_for_itself_before_it_acts() -> None:
    drive = _drive()
    drive.obey()
    for _ in range(20):
        before = {name: one.shadow_s for name, one in drive.evidence.vehicles.items()}
        drive.given.clear()
        drive.hours(0.05)
        for name in _assigned(drive.given, ACTIVATE):
            assert drive.evidence.vehicles[name].shadow_s >= 360 and before[name] > 0


def test_a_wave_that_needs_approval_asks_once_and_waits() -> None:
    waves = [{"name": "canary", "share": 0.3, "needs_approval": True}, {"name": "all"}]
    drive = _drive(waves=waves)
    orders = drive.obey() + drive.through(5)
    assert [one for one in orders if isinstance(one, AskApproval)] == [AskApproval(1)]
    assert not _assigned(orders, ACTIVATE) and "approval of wave 1" in waits_for(
        drive.policy, drive.evidence, drive.now_s
    )
    drive.say(Command(APPROVE, "ann", wave=1))
    promoted = next(one for one in drive.obey() if isinstance(one, Promote))
    assert promoted.record["approved_by"] == "ann" and promoted.record["alpha"] == 0.05


def test_nothing_is_ordered_while_paused_but_a_stop() -> None:
    drive = _drive()
    drive.obey()
    drive.say(Command(PAUSE, "ann"))
    assert drive.through(5) == []
    drive.say(Command(STOP, "bob", "smoke"))
    (order,) = drive.obey()
    assert isinstance(order, Stop) and order.why == "stopped by bob: smoke"


def test_a_resume_goes_on_where_it_was() -> None:
    drive = _drive()
    drive.obey()
    drive.say(Command(PAUSE, "ann"), Command(RESUME, "ann"))
    assert isinstance(drive.through()[-1], Finish)


def test_an_abort_withdraws_those_that_do_not_act_yet_and_orders_nothing_more() -> None:
    drive = _drive()
    drive.obey()
    drive.say(Command(ABORT, "ann", "no more"))
    orders = drive.obey()
    assert orders and all(isinstance(one, Withdraw) and one.why == "aborted by ann: no more" for one in orders)
    assert drive.through(3) == [] and drive.evidence.state == "aborted"


def test_the_pace_grows_by_its_factor_while_the_evidence_is_clean() -> None:
    drive = _drive(40, pace={"start": 2, "factor": 2.0, "step_h": 0.25}, control={"share": 0.0})
    drive.obey()
    told = 0
    for _ in range(60):
        told += len(_assigned(drive.hours(0.1), ACTIVATE))
        assert told <= 2 * 2 ** int(drive.evidence.clean_s // 900)
    assert told == 40


def test_filters_are_asked_at_the_decision() -> None:
    waves = [{"name": "yard", "where": 'label.site = "yard"'}, {"name": "all"}]
    drive = _drive(waves=waves, control={"share": 0.0})
    drive.states["v3"] = replace(drive.states["v3"], labels={"site": "yard"})
    drive.obey()
    orders = drive.through(6)
    second = next((n for n, one in enumerate(orders) if isinstance(one, Promote) and one.wave == 2), len(orders))
    assert _assigned(orders[:second], ACTIVATE) == ["v3"]


def test_named_vehicles_alone_are_in_their_wave() -> None:
    drive = _drive(waves=[{"name": "lab", "vehicles": ["v1", "v9", "nobody"]}, {"name": "all"}])
    drive.obey()
    orders = drive.through(6)
    second = next((n for n, one in enumerate(orders) if isinstance(one, Promote) and one.wave == 2), len(orders))
    assert sorted(_assigned(orders[:second], ACTIVATE)) == ["v1", "v9"]


def test_a_schedule_holds_activations_back_but_no_stop() -> None:
    drive = _drive(schedule={"blackouts": ["1970-01-01"]})
    drive.obey()
    orders = []
    while drive.now_s < 80_000:
        orders += drive.hours()
    assert any(isinstance(one, Promote) and one.wave == 1 for one in orders) and not _assigned(orders, ACTIVATE)
    assert any("schedule" in one for one in waits_for(drive.policy, drive.evidence, drive.now_s))
    assert _assigned(drive.through(5), ACTIVATE)


def test_vehicles_that_are_away_do_not_keep_a_wave_from_ending() -> None:
    drive = _drive(completion={"away_after_h": 2.0})
    drive.obey()
    away = tuple(list(drive.states)[:3])
    for name in away:
        drive.states[name] = replace(drive.states[name], state="parked")
    orders = [order for _ in range(60) for order in drive.hours(0.5, away)]
    assert isinstance(orders[-1], Finish)


def test_a_wave_that_lasts_too_long_holds_until_somebody_lets_it_go_on() -> None:
    waves = [{"name": "canary", "share": 0.3, "least_hours": 1e6, "most_duration_h": 2.0}, {"name": "all"}]
    drive = _drive(waves=waves)
    drive.obey()
    orders = drive.through(10)
    assert isinstance(orders[-1], Hold) and "longer than 2 h" in orders[-1].why
    drive.say(Command(RESUME, "ann"))
    assert drive.obey() == [GoOn()]


def test_where_a_later_rollout_has_the_hardware_one_that_is_done_tells_nobody_and_learns_nothing() -> None:
    drive = _drive()
    drive.obey()
    drive.through()

    def comes(name: str) -> None:
        drive.states[name] = VehicleReport(name, "x86", state="driving", active=OLD, stage=int(Stage.STAGE_IDLE))

    def known() -> tuple[object, ...]:
        found = drive.evidence
        return found.taking, found.acting, found.exposed, found.comparisons

    comes("v10")
    assert drive.evidence.state == "done" and _assigned(drive.hours(), SHADOW) == ["v10"]
    drive.fold(Observation(drive.now_s, taken=("x86",)))
    before = known()
    comes("v11")
    _refusing(drive, "v10")
    assert drive.hours() == drive.hours(away=("v0", "v1")) == [] and known() == before
    drive.fold(Observation(drive.now_s, taken=()))
    assert _assigned(drive.hours(), SHADOW) == ["v11"] and known() != before


def _refusing(drive: Drive, name: str) -> None:
    drive.states[name] = replace(
        drive.states[name], staged="", stage=int(Stage.STAGE_REFUSED), refused=NEW, why="self-test failed"
    )


def test_a_vehicle_that_refuses_is_tried_again_later_and_then_withdrawn() -> None:
    drive = _drive(retry={"times": 1, "after_h": 1.0}, completion={"share": 0.0})
    drive.obey()
    name = _assigned(drive.given, SHADOW)[0]
    _refusing(drive, name)
    drive.states[name] = replace(drive.states[name])
    told = []
    for _ in range(12):
        orders = drive.hours()
        told += [one for one in orders if getattr(one, "vehicle", "") == name]
        _refusing(drive, name)
    assert told == [Assign(name, SHADOW, told[0].wave), Withdraw(name, "self-test failed")]
    drive.say(Command(RETRY, "ann", vehicle=name))
    assert name in _assigned(drive.obey(), SHADOW)


def test_who_refused_this_bundle_before_is_not_told_to_take_it() -> None:
    drive = _drive(shadow={"share": 1.0, "least_hours": 1e5})
    drive.states["v2"] = replace(drive.states["v2"], refused=NEW, stage=int(Stage.STAGE_REFUSED), seen_s=1.0)
    drive.fold(Observation(1.0, (drive.states["v2"],)))
    drive.obey()
    drive.through(2)
    assert "v2" not in _assigned(drive.given, SHADOW)


@pytest.mark.parametrize(("until", "is_told"), [(1, True), (2, False)])
def test_who_was_stopped_with_an_earlier_release_of_this_bundle_is_told_to_take_this_one(
    until: int, is_told: bool
) -> None:
    drive = _drive(shadow={"share": 1.0, "least_hours": 1e5})
    stopped = {"refused": NEW, "refused_until": until, "stage": int(Stage.STAGE_REFUSED), "seen_s": 1.0}
    drive.states["v2"] = replace(drive.states["v2"], **stopped)
    drive.fold(Observation(1.0, (drive.states["v2"],)))
    drive.obey()
    drive.through(2)
    assert ("v2" in _assigned(drive.given, SHADOW)) == is_told


def test_lots_are_the_same_each_time_and_even() -> None:
    draws = [lots.lot("s", "turn", f"v{n}") for n in range(4_000)]
    assert draws == [lots.lot("s", "turn", f"v{n}") for n in range(4_000)]
    assert 0.45 < sum(draws) / len(draws) < 0.55
    assert draws != [lots.lot("t", "turn", f"v{n}") for n in range(4_000)]


POLICIES = st.fixed_dictionaries({
    "seed": st.sampled_from(["", "a", "b"]),
    "where": st.sampled_from(["", 'vehicle ~ "*[02468]"', 'hardware = "x86"']),
    "shadow": st.fixed_dictionaries({
        "share": st.sampled_from([0.0, 0.2, 1.0]), "least_hours": st.sampled_from([0.0, 2.0]),
        "each_hours": st.sampled_from([0.0, 0.5]),
    }),
    "waves": st.sampled_from([
        [{"name": "a", "share": 0.2, "least_hours": 0}, {"name": "b", "share": 0.6, "least_hours": 5}, {"name": "c"}],
        [{"name": "a", "where": 'vehicle ~ "*[1357]"'}, {"name": "c", "least_hours": 0}],
        [{"name": "a", "count": 3, "needs_approval": True, "least_hours": 0}, {"name": "c"}],
        [{"name": "a", "vehicles": ["car-00001", "car-00002"], "least_hours": 1}, {"name": "c"}],
    ]),
    "pace": st.sampled_from([None, {"start": 2, "factor": 1.5, "step_h": 1.0}]),
    "schedule": st.sampled_from([{}, {"windows": [{"begin": "06:00", "end": "18:00"}]}]),
    "control": st.sampled_from([{}, {"share": 0.0}, {"share": 0.4, "joins_at_end": False}]),
    "tests": st.sampled_from([
        {"interval_s": 1800, "tolerable_per_hour": 20.0},
        {"interval_s": 1800, "alpha_stop": 0.05, "alpha_promote": 0.2},
        {"interval_s": 1800, "tolerable_per_hour": 20.0, "edition": 1},
    ]),
    "retry": st.sampled_from([{}, {"times": 0}, {"after_h": 1.0}]),
})  # fmt: skip
WORLDS = st.builds(
    World,
    vehicles=st.just(24), driving=st.sampled_from([0.3, 1.0]), unlike=st.sampled_from([0.0, 1.0]),
    ratio=st.sampled_from([1.0, 4.0]), rate_per_h=st.sampled_from([0.0, 1.0]), refuses=st.sampled_from([0.0, 0.3]),
    falls_silent=st.sampled_from([0.0, 0.5]), seed=st.integers(0, 50),
)  # fmt: skip
KINDS = st.sampled_from([PAUSE, RESUME, ABORT, APPROVE, RETRY, STOP])
SAID = st.lists(
    st.tuples(st.integers(1, 40).map(float), st.builds(Command, KINDS, st.just("ann"), wave=st.just(1))), max_size=3
)


def _replayed(policy: Policy, log: tuple[Observation, ...], rollout: str) -> Iterator[tuple[Evidence, Observation]]:
    evidence = begin(policy, rollout, NEW, 1, ())
    for one in log:
        yield evidence, one
        evidence = fold(evidence, one)


@settings(
    max_examples=int(os.environ.get("ROADFUSE_LONG", "0")) * 1_000 or 25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(POLICIES, WORLDS, SAID)
def test_whatever_happens_the_rules_hold_and_the_log_gives_the_same_orders(
    table: dict[str, Any], world: World, said: list[tuple[float, Command]]
) -> None:
    policy = Policy.of_dict(table)
    found = rehearse(policy, world, 40.0, said=sorted(said, key=lambda one: one[0]), keeps_log=True)
    activated: set[str] = set()
    evidence = None
    for number, (evidence, one) in enumerate(_replayed(policy, found.log, found.evidence.rollout)):
        if number % 25 == 0:  # the database keeps it as JSON
            evidence = Evidence.of_dict(json.loads(json.dumps(evidence.to_dict())))
        if not one.ordered:
            continue
        assert decide(policy, evidence, one.at_s) == one.ordered
        if evidence.state in ("stopped", "created"):
            raise AssertionError(f"ordered when {evidence.state}")
        for order in one.ordered:
            if evidence.state == "aborted":
                assert isinstance(order, Withdraw)
            if evidence.state == "done":
                assert isinstance(order, Assign | Withdraw | Stop | Hold | GoOn)
            if evidence.state == "paused":
                assert isinstance(order, Stop)
            if isinstance(order, Assign):
                _check_assignment(policy, evidence, order, one.at_s, activated)
    assert evidence is not None
    last = fold(evidence, found.log[-1])
    assert json.dumps(last.to_dict()) == json.dumps(found.evidence.to_dict())


def _check_assignment(policy: Policy, evidence: Evidence, order: Assign, at_s: float, activated: set[str]) -> None:
    known = evidence.vehicles[order.vehicle]
    facts = known.report.facts()
    assert compiled(policy.where)(facts)
    assert not evidence.held and order.wave == evidence.wave
    every = stages(policy)
    held_back = lots.is_held_back(policy.seed or evidence.rollout, order.vehicle, policy.control.share)
    if order.wave and not every[order.wave - 1].vehicles and order.wave <= len(policy.waves):
        assert not held_back
    if order.mode == SHADOW:
        return
    assert (order.wave >= 1 and known.failed_s is None) or known.attempts <= policy.retry.times
    assert known.shadow_s >= policy.shadow.each_hours * 3_600
    assert policy.schedule.is_open(at_s)
    if order.wave <= len(policy.waves):
        wave = policy.waves[order.wave - 1]
        assert not wave.vehicles or order.vehicle in wave.vehicles
        assert compiled(wave.where)(facts)
        assert not wave.needs_approval or order.wave in evidence.approved
    activated.add(order.vehicle)
    if policy.pace is not None:
        steps = int(evidence.clean_s // (policy.pace.step_h * 3_600))
        assert len(activated) <= policy.pace.start * policy.pace.factor**steps
