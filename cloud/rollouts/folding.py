"""How an observation becomes evidence.

Counts wait until their interval is over; then each vehicle's are capped, put into arms, and the tests go on. So the
order of observations within an interval does not matter. What people command and what was ordered counts at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import fields, replace
from typing import Any, Final

from cloud.rollouts import filters, orders
from cloud.rollouts import weighing as weigh
from cloud.rollouts.comparison import HOUR_S, Comparison, Exposure, Spread
from cloud.rollouts.editions import EDITIONS
from cloud.rollouts.evidence import (
    ABORT,
    ABORTED,
    ACTIVE_ARM,
    APPROVE,
    BESIDE_ARM,
    CREATED,
    DONE,
    ENDED,
    JUDGED,
    OLD_ARM,
    PAIRED,
    PAUSE,
    PAUSED,
    RESUME,
    RETRY,
    RUNNING,
    SHADOW_ARM,
    START,
    STOP,
    STOPPED,
    Command,
    Evidence,
    Increment,
    Judged,
    Observation,
    Vehicle,
    VehicleReport,
)
from cloud.rollouts.lots import lot
from cloud.rollouts.own_rates import expected
from edge.updates.evidence import ALL, BETTER, DIFFERS, SAME, WORSE
from roadfuse.v1.updates_pb2 import Mode, Stage

SHADOW: Final = int(Mode.MODE_SHADOW)
ACTIVATE: Final = int(Mode.MODE_ACTIVATE)
_TAKEN: Final = (Stage.STAGE_IDLE, Stage.STAGE_CONFIRMED)
_TRIED: Final = (Stage.STAGE_SHADOWING, Stage.STAGE_ARMED, Stage.STAGE_PROBATION, Stage.STAGE_CONFIRMED)
SILENT: Final = "silent"
# After a retry the vehicle still says why it refused, until it has heard of the retry.
_RETRY_GRACE_S: Final = 600.0
_MOST_CURVE: Final = 600
_LEAST_PEERS: Final = 5
_SUMS: Final = ("treated_squares", "treated_crossed", "control_squares", "control_crossed")


def fold(evidence: Evidence, observation: Observation) -> Evidence:
    """The evidence with what was new. Nothing of what is given changes."""
    draft = _Draft(evidence)
    at_s = max(observation.at_s, evidence.at_s)
    interval_s = evidence.policy.tests.interval_s
    interval = math.floor(at_s / interval_s)
    if interval > draft.interval >= 0:
        draft.close(interval * interval_s)
    draft.interval, draft.at_s = interval, at_s
    draft.hear(observation.reports)
    draft.count(observation.increments)
    draft.judge(observation.judged)
    for gate in observation.gates:
        draft.gates = {**draft.gates, gate.gate: (gate.verdict, gate.why)}
    for command in observation.commands:
        draft.obey(command)
    draft.carried_out(observation.ordered)
    return draft.evidence()


class _Draft:
    """Evidence that is being changed; mappings are copied when they first are."""

    def __init__(self, evidence: Evidence) -> None:
        self._was = evidence
        self._own: set[Any] = set()
        self.policy, self.bundle = evidence.policy, evidence.bundle
        for one in fields(evidence):
            setattr(self, one.name, getattr(evidence, one.name))

    # Of Evidence, with types that may change.
    rollout: str
    state: str
    why: str
    at_s: float
    interval: int
    started_s: float | None
    ended_s: float | None
    wave: int | None
    wave_began_s: float
    wave_began_active_s: float
    held: str
    stop_said: str
    asked: int
    approved: Any
    gates: Any
    clean_s: float
    vehicles: Any
    pending: Any
    pending_judged: Any
    comparisons: Any
    taking: Any
    acting: Any
    frames_same: int
    frames_differ: int
    totals: Any
    exposed: Any
    expected: Any
    spreads: Any
    curve: Any
    peak: float
    said: Any
    hardware: tuple[str, ...]

    def evidence(self) -> Evidence:
        """As a value again."""
        return Evidence(**{one.name: getattr(self, one.name) for one in fields(Evidence)})

    def own(self, name: str) -> Any:
        """A mapping of ours, to be changed."""
        if name not in self._own:
            setattr(self, name, dict(getattr(self, name)))
            self._own.add(name)
        return getattr(self, name)

    def hear(self, reports: Iterable[VehicleReport]) -> None:
        for report in reports:
            vehicles = self.own("vehicles")
            known = vehicles.get(report.vehicle)
            if known is not None and _age(report) < _age(known.report):
                continue
            known = known or Vehicle(report)
            driving = {"driving": True, "online": True, "gone": known.is_driving}.get(report.state, False)
            is_silent = known.is_silent and report.seen_s <= known.report.seen_s
            vehicles[report.vehicle] = replace(known, report=report, is_driving=driving, is_silent=is_silent)

    def count(self, increments: Iterable[Increment]) -> None:
        for one in increments:
            if one.bundle == self.bundle:
                arm = SHADOW_ARM if one.is_shadow else ACTIVE_ARM
            elif one.is_shadow:
                continue  # another rollout's
            else:
                arm = OLD_ARM
            self._add(one.vehicle, arm, one.slice, one.seconds, one.counts)

    def _add(self, vehicle: str, arm: str, place: str, seconds: float, counts: Any) -> None:
        pending = self.own("pending")
        arms = dict(pending.get(vehicle, {}))
        slices = dict(arms.get(arm, {}))
        before = slices.get(place, [[], {}])
        summed = dict(before[1])
        for metric, times in counts.items():
            summed[metric] = summed.get(metric, 0) + times
        # Added up when the interval closes; sorted, so that evidence is the same for any order.
        slices[place] = [sorted([*before[0], seconds]), summed]
        arms[arm] = slices
        pending[vehicle] = arms

    def judge(self, judged: Iterable[Judged]) -> None:
        for one in judged:
            pending = self.own("pending_judged")
            slices = dict(pending.get(one.vehicle, {}))
            for place in {ALL, *one.slices}:
                worse, better = slices.get(place, (0, 0))
                slices[place] = [worse + one.worse, better + one.better]
            pending[one.vehicle] = slices

    def obey(self, command: Command) -> None:
        self.said = (*self.said, (self.at_s, command))
        if command.kind == START and self.state == CREATED:
            self.state, self.started_s = RUNNING, self.at_s
        elif command.kind == PAUSE and self.state == RUNNING:
            self.state, self.why = PAUSED, command.why
        elif command.kind == RESUME and self.state == PAUSED:
            self.state, self.why = RUNNING, ""
        elif command.kind == RESUME and self.state == RUNNING:
            self.wave_began_s = self.at_s  # of a wave that took too long: it may take as long again
        elif command.kind == ABORT and self.state not in ENDED:  # what is done can't be aborted, only stopped
            self.state, self.ended_s = ABORTED, self.at_s
            self.why = f"aborted by {command.by}" + (f": {command.why}" if command.why else "")
        elif command.kind == STOP and self.state not in (STOPPED, ABORTED):
            self.stop_said = f"stopped by {command.by}" + (f": {command.why}" if command.why else "")
        elif command.kind == APPROVE:
            self.own("approved").setdefault(command.wave, command.by)
        elif command.kind == RETRY:
            vehicles = self.own("vehicles")
            for name in [command.vehicle] if command.vehicle else sorted(vehicles):
                if name in vehicles and vehicles[name].failed_s is not None:
                    vehicles[name] = replace(vehicles[name], mode=0, failed_s=None, failed_why="", attempts=1)

    def carried_out(self, ordered: Iterable[orders.Order]) -> None:
        for order in ordered:
            match order:
                case orders.Assign(name, mode, wave):
                    vehicles = self.own("vehicles")
                    known = vehicles.get(name) or Vehicle(VehicleReport(name))
                    is_again = mode == known.mode or (known.mode == 0 and known.tried > 0)
                    attempts = known.attempts + 1 if is_again else 1
                    vehicles[name] = replace(
                        known,
                        mode=mode,
                        wave=wave,
                        ordered_s=self.at_s,
                        attempts=attempts,
                        failed_s=None,
                        failed_why="",
                    )
                case orders.Withdraw(name, _):
                    vehicles = self.own("vehicles")
                    if name in vehicles:
                        vehicles[name] = replace(vehicles[name], mode=0)
                case orders.Stop(why, _):
                    self._end(STOPPED, why)
                    vehicles = self.own("vehicles")
                    vehicles.update((name, replace(one, mode=0)) for name, one in vehicles.items() if one.mode)
                case orders.Finish(why):
                    if self.state not in ENDED:
                        self._end(DONE, why)
                case orders.Hold(why):
                    self.held = why
                case orders.GoOn():
                    self.held = ""
                case orders.Promote(wave, _):
                    self.wave, self.wave_began_s = wave, self.at_s
                    if wave == 1:
                        self.expect()
                    self.wave_began_active_s = self.exposed.get(f"{ACTIVE_ARM}/{ALL}", Exposure()).hours * HOUR_S
                case orders.AskApproval(wave):
                    self.asked = wave

    def expect(self) -> None:
        """From here on vehicles are compared by what each counted until now."""
        if not EDITIONS[self.policy.tests.edition].has_own_rates or f"{ACTIVE_ARM}/{ALL}" in self.exposed:
            return
        for metric in self.policy.tests.metrics:
            events, hours = f"{OLD_ARM}/{metric.name}/{ALL}", f"{OLD_ARM}//{ALL}"
            past = {name: (one.get(events, 0.0), one[hours]) for name, one in self.totals.items() if one.get(hours)}
            if metric.promotes and (found := expected(past)):
                self.own("expected")[metric.name] = found

    def _end(self, state: str, why: str) -> None:
        self.state, self.why, self.ended_s = state, why, self.at_s

    def close(self, at_s: float) -> None:
        """The interval is over."""
        self._find_silent(at_s)
        self._settle(at_s)
        self._compare()
        self._compare_judged()
        self.pending, self.pending_judged = {}, {}
        self._own -= {"pending", "pending_judged"}
        if self.state in (STOPPED, ABORTED) or self.started_s is None:
            return
        now = self.evidence()
        value = weigh.against(now)
        self.peak = max(self.peak, value)
        if self.state == RUNNING and self.wave and not self.held and value < self.policy.tests.hold_at:
            self.clean_s += self.policy.tests.interval_s
        kind = ACTIVE_ARM if self.wave else SHADOW_ARM
        self.curve = _thinned((*self.curve, (at_s, value, weigh.for_promotion(now, kind))))

    def _find_silent(self, at_s: float) -> None:
        after_s = self._silence_s()
        for name, one in list(self.vehicles.items()):
            if one.is_driving and not one.is_silent and at_s - one.report.seen_s > after_s:
                self.own("vehicles")[name] = replace(one, is_silent=True)
                if self.started_s is not None and one.report.seen_s + after_s >= self.started_s:
                    arm = ACTIVE_ARM if one.mode == ACTIVATE else OLD_ARM
                    # It was driving for so long as far as one knows; nobody else counts that time.
                    self._add(name, arm, ALL, after_s, {SILENT: 1})

    def _silence_s(self) -> float:
        """What is heard within an interval is known when it is over: less than two intervals can't be told."""
        return max(self.policy.silence.after_s, 2.0 * self.policy.tests.interval_s)

    def _settle(self, at_s: float) -> None:
        """Each vehicle that took the release, or failed to, counts once a mode."""
        peers = [one for one in self.vehicles.values() if one.mode != ACTIVATE and one.is_driving]
        silent = sum(one.is_silent for one in peers) / len(peers) if len(peers) >= _LEAST_PEERS else 0.0
        tried, failed = {SHADOW: 0, ACTIVATE: 0}, {SHADOW: 0, ACTIVATE: 0}
        for name in sorted(self.vehicles):
            one = self.vehicles[name]
            if one.failed_why.startswith(SILENT) and not one.is_silent:  # it is back; that it was away stays counted
                one = self.own("vehicles")[name] = replace(one, failed_s=None, failed_why="")
            if one.mode == 0 or one.failed_s is not None:
                continue
            why = self._failure(one, at_s)
            if why:
                one = replace(one, failed_s=at_s, failed_why=why)
            elif one.settled < one.mode and self._has_taken(one):
                one = replace(one, settled=one.mode)
            else:
                continue
            if one.tried < one.mode:
                tried[one.mode] += 1
                failed[one.mode] += bool(why)
                one = replace(one, tried=one.mode)
            self.own("vehicles")[name] = one
        # Where others fall silent too, it is not the release: the network is away.
        null = min(self.policy.tests.most_failed + silent, 0.98)
        self.taking = self.taking.grown(tried[SHADOW], failed[SHADOW], null)
        self.acting = self.acting.grown(tried[ACTIVATE], failed[ACTIVATE], null)

    def _failure(self, one: Vehicle, at_s: float) -> str:
        said, waited_s = one.report, at_s - one.ordered_s
        if said.refused == self.bundle and said.active != self.bundle and said.seen_s >= one.ordered_s:
            is_old = one.attempts > 1 and waited_s < _RETRY_GRACE_S
            return "" if is_old else said.why or "refused"
        if one.mode == ACTIVATE and one.settled < ACTIVATE and one.is_silent and said.seen_s >= one.ordered_s:
            return f"{SILENT}: not heard for {self._silence_s():g} s while driving"
        return ""

    def _has_taken(self, one: Vehicle) -> bool:
        said = one.report
        if one.mode == ACTIVATE:
            return said.active == self.bundle and said.stage in _TAKEN
        return one.shadow_s > 0 or said.active == self.bundle or (said.staged == self.bundle and said.stage in _TRIED)

    def _compare(self) -> None:
        """Put the interval's counts into their arms."""
        arms = _Arms(self)
        for name in sorted(self.pending):
            known = self.vehicles.get(name)
            if known is None or not self.concerns(known):
                continue
            counted = self.pending[name]
            shadow, active, old = (counted.get(arm, {}) for arm in (SHADOW_ARM, ACTIVE_ARM, OLD_ARM))
            if shadow or active:
                more = {"shadow_s": _hours(shadow, ALL), "active_s": _hours(active, ALL)}
                known = replace(
                    known,
                    shadow_s=known.shadow_s + more["shadow_s"] * HOUR_S,
                    active_s=known.active_s + more["active_s"] * HOUR_S,
                )
                self.own("vehicles")[name] = known
            if shadow and old:
                arms.pair(name, shadow, old)
            if active:
                arms.add(name, self.stratum(known), ACTIVE_ARM, active)
            elif old and known.mode != ACTIVATE and known.active_s == 0.0:
                arms.add(name, self.stratum(known), OLD_ARM, old)
        arms.test()

    def concerns(self, one: Vehicle) -> bool:
        """Whether the rollout is about this vehicle."""
        if self.hardware and one.report.hardware not in self.hardware:
            return False
        return not self.policy.where or filters.compiled(self.policy.where)(one.report.facts())

    def stratum(self, one: Vehicle) -> str:
        """Vehicles are compared with those alone that any wave would have chosen alike."""
        wheres = [wave.where for wave in self.policy.waves if wave.where]
        facts = one.report.facts() if wheres else {}
        return one.report.hardware + "".join("+" if filters.compiled(where)(facts) else "-" for where in wheres)

    def _compare_judged(self) -> None:
        for name in sorted(self.pending_judged):
            known = self.vehicles.get(name)
            if known is None or not self.concerns(known):
                continue
            for place, (worse, better) in sorted(self.pending_judged[name].items()):
                if worse + better == 0 or place not in {one.name for one in self.policy.tests.slices}:
                    continue
                cap = self.policy.tests.cap
                # One scene may hold many labels: of each vehicle and interval so many count.
                self.differ(JUDGED, name, place, min(worse, cap), min(better, cap))

    def differ(self, kind: str, vehicle: str, place: str, worse: int, better: int) -> None:
        """Pairs of which the release, or the active bundle, is wrong."""
        self._pairs(vehicle, f"{kind}/{WORSE}/{place}", worse, better, 1.0, 1.0)
        key = f"{kind}/{place}"
        before = self._total(vehicle, f"{kind}//{place}", worse + better)
        self.own("exposed")[key] = self.exposed.get(key, Exposure()).grown(before, float(worse + better))

    def _pairs(self, vehicle: str, key: str, treated: int, control: int, treated_h: float, control_h: float) -> None:
        arm, metric, place = key.split("/")
        known = self.comparisons.get(key, Comparison())
        one = known.compared(treated, treated_h, control, control_h, self.policy.tests)
        was = self._total(vehicle, f"{arm}/{metric}/{place}", treated)
        was_both = self._total(vehicle, f"{arm}+/{metric}/{place}", treated + control)
        now, both = was + treated, was_both + treated + control
        self.own("comparisons")[key] = replace(
            one.counted(treated, treated_h, control, self.policy.tests),
            treated_squares=one.treated_squares + now * now - was * was,
            treated_crossed=one.treated_crossed + now * both - was * was_both,
            control_squares=one.control_squares + both * both - was_both * was_both,
        )

    def spread(self, vehicle: str, key: str, events: int, hours: float, times: float) -> None:
        """Counts of a vehicle of which so many times as much as of all is expected."""
        arm, metric, place = key.split("/")
        was, before_h = (
            self._total(vehicle, f"{arm}~/{metric}/{place}", events),
            self._total(vehicle, f"{arm}~{metric}//{place}", hours * times),
        )
        self.own("spreads")[key] = self.spreads.get(key, Spread()).grown(was, events, before_h, hours * times, times)

    def _total(self, vehicle: str, key: str, more: float) -> float:
        """Add to a vehicle's sum; returns what it was."""
        totals = self.own("totals")
        if ("totals", vehicle) not in self._own:
            totals[vehicle] = dict(totals.get(vehicle, {}))
            self._own.add(("totals", vehicle))
        was: float = totals[vehicle].get(key, 0.0)
        if more:
            totals[vehicle][key] = was + more
        return was


class _Arms:
    """Counts of one interval, by stratum and arm."""

    def __init__(self, draft: _Draft) -> None:
        self._draft = draft
        self._tests = draft.policy.tests
        self._slices = [place.name for place in self._tests.slices]
        # stratum -> slice, or metric/slice -> arm -> hours, those of a metric times what is expected of it;
        # stratum -> (metric, slice) -> arm -> events
        self._hours: dict[str, dict[str, dict[str, float]]] = {}
        self._events: dict[str, dict[tuple[str, str], dict[str, int]]] = {}
        self._sums: dict[str, dict[str, float]] = {}  # comparison -> fields that say how unlike vehicles are

    def add(self, name: str, stratum: str, arm: str, counted: Any) -> None:
        """A vehicle's counts in one arm."""
        draft = self._draft
        for place in self._slices:
            if place not in counted:
                continue
            hours = _hours(counted, place)
            before_h = draft._total(name, f"{arm}//{place}", hours)
            key = f"{arm}/{place}"
            draft.own("exposed")[key] = draft.exposed.get(key, Exposure()).grown(before_h, hours)
            self._exposed(stratum, place, arm, hours)
            counts, totals = counted[place][1], draft.totals[name]
            for metric in self._tests.metrics:
                events = self._capped(counted, place, metric.of) if counts else 0
                if metric.name in draft.expected:
                    times = draft.expected[metric.name].get(name, 1.0)
                    self._exposed(stratum, f"{metric.name}/{place}", arm, hours * times)
                    draft.spread(name, f"{arm}/{metric.name}/{place}", events, hours, times)
                if not events and f"{arm}/{metric.name}/{place}" not in totals:
                    continue
                if events:
                    both = self._events.setdefault(stratum, {}).setdefault((metric.name, place), {})
                    both[arm] = both.get(arm, 0) + events
                was = draft._total(name, f"{arm}/{metric.name}/{place}", events)
                self._spread(f"{ACTIVE_ARM}/{metric.name}/{place}", arm, was, events, before_h, hours)

    def _exposed(self, stratum: str, key: str, arm: str, hours: float) -> None:
        of_arms = self._hours.setdefault(stratum, {}).setdefault(key, {})
        of_arms[arm] = of_arms.get(arm, 0.0) + hours

    def pair(self, name: str, shadow: Any, old: Any) -> None:
        """Release and active bundle on the same vehicle: what is its own falls out."""
        draft = self._draft
        if ALL in shadow:
            draft.frames_same += int(shadow[ALL][1].get(SAME, 0))
            draft.frames_differ += int(shadow[ALL][1].get(DIFFERS, 0))
        for place in self._slices:
            hours, old_h = _hours(shadow, place), _hours(old, place)
            if place not in shadow or hours <= 0.0 or old_h <= 0.0:
                continue
            for arm, more in ((SHADOW_ARM, hours), (BESIDE_ARM, old_h)):
                key = f"{arm}/{place}"
                before = draft._total(name, f"{arm}//{place}", more)
                draft.own("exposed")[key] = draft.exposed.get(key, Exposure()).grown(before, more)
            for metric in self._tests.metrics:
                events, others = (self._capped(one, place, metric.of) for one in (shadow, old))
                key = f"{SHADOW_ARM}/{metric.name}/{place}"
                if events or others:
                    draft._pairs(name, key, events, others, hours, old_h)
                elif metric.promotes:
                    known = draft.comparisons.get(key, Comparison())
                    draft.own("comparisons")[key] = known.counted(0, hours, 0, self._tests)
            if place in shadow and (pairs := self._drawn(name, place, shadow[place])) != (0, 0):
                draft.differ(PAIRED, name, place, *pairs)

    def test(self) -> None:
        """The tests go on by one interval."""
        draft, tests = self._draft, self._tests
        for key, sums in self._sums.items():
            draft.own("comparisons")[key] = replace(draft.comparisons.get(key, Comparison()), **sums)
        for metric in tests.metrics:
            is_expected = metric.name in draft.expected
            for place in self._slices:
                key = f"{ACTIVE_ARM}/{metric.name}/{place}"
                known = one = draft.comparisons.get(key, Comparison())
                treated = control = 0
                treated_h = 0.0
                for stratum in sorted(self._hours):
                    hours = self._hours[stratum].get(place, {})
                    own = self._hours[stratum].get(f"{metric.name}/{place}", {}) if is_expected else hours
                    events = self._events.get(stratum, {}).get((metric.name, place), {})
                    of_arms = (events.get(ACTIVE_ARM, 0), own.get(ACTIVE_ARM, 0.0))
                    of_old = (events.get(OLD_ARM, 0), own.get(OLD_ARM, 0.0))
                    one = one.compared(*of_arms, *of_old, tests)
                    treated, control = treated + of_arms[0], control + of_old[0]
                    treated_h += hours.get(ACTIVE_ARM, 0.0)
                if treated or control or (treated_h and metric.promotes):
                    one = one.counted(treated, treated_h, control, tests)
                if one is not known:
                    draft.own("comparisons")[key] = one

    def _capped(self, counted: Any, place: str, names: tuple[str, ...]) -> int:
        if place not in counted:
            return 0
        seconds, counts = counted[place]
        # A vehicle that comes back tells of many intervals at once.
        most = self._tests.cap * max(1, math.ceil(math.fsum(seconds) / self._tests.interval_s))
        return min(most, sum(int(counts.get(name, 0)) for name in names))

    def _drawn(self, name: str, place: str, counted: Any) -> tuple[int, int]:
        """Of the pairs that differ as many as count, worse and better in the odds in which they came, by lot."""
        seconds, counts = counted
        worse, better = int(counts.get(WORSE, 0)), int(counts.get(BETTER, 0))
        most = self._tests.cap * max(1, math.ceil(math.fsum(seconds) / self._tests.interval_s))
        if worse + better <= most:
            return worse, better
        share = most * worse / (worse + better)
        drawn = lot(self._draft.policy.seed or self._draft.rollout, f"{self._draft.interval} {place}", name)
        worse = math.floor(share + drawn)
        return worse, most - worse

    def _spread(self, key: str, arm: str, was: float, events: int, before_h: float, hours: float) -> None:
        now, after_h = was + events, before_h + hours
        sums = self._sums.get(key)
        if sums is None:
            one = self._draft.comparisons.get(key, Comparison())
            sums = self._sums[key] = {name: getattr(one, name) for name in _SUMS}
        squares, crossed = _SUMS[:2] if arm == ACTIVE_ARM else _SUMS[2:]
        sums[squares] += now * now - was * was
        sums[crossed] += now * after_h - was * before_h


def _hours(counted: Any, place: str) -> float:
    return math.fsum(counted[place][0]) / HOUR_S if place in counted else 0.0


def _age(report: VehicleReport) -> tuple[float, str]:
    """What reports of a vehicle are ordered by; the same for any order in which they come."""
    return report.seen_s, repr((report.stage, report.state, report.active, report.staged, report.refused, report.why))


def _thinned(curve: tuple[Any, ...]) -> tuple[Any, ...]:
    return curve if len(curve) <= _MOST_CURVE else (*curve[: -_MOST_CURVE // 2 : 2], *curve[-_MOST_CURVE // 2 :])
