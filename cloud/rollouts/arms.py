"""Counts of an interval, put into arms: capped, by hardware and filters, and each vehicle against itself."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, Final

from cloud.rollouts.comparison import HOUR_S, Comparison, Exposure, Spread
from cloud.rollouts.draft import Draft
from cloud.rollouts.evidence import ACTIVE_ARM, BESIDE_ARM, OLD_ARM, OWN, PAIRED, SHADOW_ARM
from cloud.rollouts.lots import lot
from edge.updates.evidence import ALL, BETTER, DIFFERS, SAME, WORSE

_SUMS: Final = ("treated_squares", "treated_crossed", "control_squares", "control_crossed")


class Arms:
    """Counts of one interval, by stratum and arm."""

    def __init__(self, draft: Draft) -> None:
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
            hours = hours_of(counted, place)
            before_h = draft.total(name, f"{arm}//{place}", hours)
            key = f"{arm}/{place}"
            draft.own("exposed")[key] = draft.exposed.get(key, Exposure()).grown(before_h, hours)
            self._exposed(stratum, place, arm, hours)
            counts, totals = counted[place][1], draft.totals[name]
            for metric in self._tests.metrics:
                events = self._capped(counted, place, metric.of) if counts else 0
                if metric.name in draft.expected:
                    times = draft.expected[metric.name].get(name, 1.0)
                    self._exposed(stratum, f"{metric.name}/{place}", arm, hours * times)
                    _spread(draft, name, f"{arm}/{metric.name}/{place}", events, hours, times)
                if not events and f"{arm}/{metric.name}/{place}" not in totals:
                    continue
                if events:
                    both = self._events.setdefault(stratum, {}).setdefault((metric.name, place), {})
                    both[arm] = both.get(arm, 0) + events
                was = draft.total(name, f"{arm}/{metric.name}/{place}", events)
                self._sum(f"{ACTIVE_ARM}/{metric.name}/{place}", arm, was, events, before_h, hours)

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
            hours, old_h = hours_of(shadow, place), hours_of(old, place)
            if place not in shadow or hours <= 0.0 or old_h <= 0.0:
                continue
            for arm, more in ((SHADOW_ARM, hours), (BESIDE_ARM, old_h)):
                key = f"{arm}/{place}"
                before = draft.total(name, f"{arm}//{place}", more)
                draft.own("exposed")[key] = draft.exposed.get(key, Exposure()).grown(before, more)
            for metric in self._tests.metrics:
                events, others = (self._capped(one, place, metric.of) for one in (shadow, old))
                key = f"{SHADOW_ARM}/{metric.name}/{place}"
                if events or others:
                    _pairs(draft, name, key, events, others, hours, old_h)
                elif metric.promotes:
                    known = draft.comparisons.get(key, Comparison())
                    draft.own("comparisons")[key] = known.counted(0, hours, 0, self._tests)
            if place in shadow and (pairs := self._drawn(name, place, shadow[place])) != (0, 0):
                differ(draft, PAIRED, name, place, *pairs)

    def test(self) -> None:
        """The tests go on by one interval."""
        draft, tests = self._draft, self._tests
        for key, sums in self._sums.items():
            draft.own("comparisons")[key] = replace(draft.comparisons.get(key, Comparison()), **sums)
        for metric in tests.metrics:
            for place in self._slices:
                if metric.name in draft.expected:
                    self._test_own(metric.name, place)
                key = f"{ACTIVE_ARM}/{metric.name}/{place}"
                known = one = draft.comparisons.get(key, Comparison())
                treated = control = 0
                treated_h = 0.0
                for stratum in sorted(self._hours):
                    hours = self._hours[stratum].get(place, {})
                    events = self._events.get(stratum, {}).get((metric.name, place), {})
                    of_arms = (events.get(ACTIVE_ARM, 0), hours.get(ACTIVE_ARM, 0.0))
                    of_old = (events.get(OLD_ARM, 0), hours.get(OLD_ARM, 0.0))
                    one = one.compared(*of_arms, *of_old, tests)
                    treated, control = treated + of_arms[0], control + of_old[0]
                    treated_h += hours.get(ACTIVE_ARM, 0.0)
                if treated or control or (treated_h and metric.promotes):
                    one = one.counted(treated, treated_h, control, tests)
                if one is not known:
                    draft.own("comparisons")[key] = one

    def _test_own(self, metric: str, place: str) -> None:
        """The same with what was expected of each vehicle."""
        draft, key = self._draft, f"{OWN}/{metric}/{place}"
        one = draft.comparisons.get(key, Comparison())
        for stratum in sorted(self._hours):
            hours = self._hours[stratum].get(f"{metric}/{place}", {})
            events = self._events.get(stratum, {}).get((metric, place), {})
            counts = ((events.get(arm, 0), hours.get(arm, 0.0)) for arm in (ACTIVE_ARM, OLD_ARM))
            one = one.compared(*next(counts), *next(counts), self._tests)
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

    def _sum(self, key: str, arm: str, was: float, events: int, before_h: float, hours: float) -> None:
        now, after_h = was + events, before_h + hours
        sums = self._sums.get(key)
        if sums is None:
            one = self._draft.comparisons.get(key, Comparison())
            sums = self._sums[key] = {name: getattr(one, name) for name in _SUMS}
        squares, crossed = _SUMS[:2] if arm == ACTIVE_ARM else _SUMS[2:]
        sums[squares] += now * now - was * was
        sums[crossed] += now * after_h - was * before_h


def hours_of(counted: Any, place: str) -> float:
    """Of a vehicle in one arm, within a slice."""
    return math.fsum(counted[place][0]) / HOUR_S if place in counted else 0.0


def differ(draft: Draft, kind: str, vehicle: str, place: str, worse: int, better: int) -> None:
    """Pairs of which the release, or the active bundle, is wrong."""
    _pairs(draft, vehicle, f"{kind}/{WORSE}/{place}", worse, better, 1.0, 1.0)
    key = f"{kind}/{place}"
    before = draft.total(vehicle, f"{kind}//{place}", worse + better)
    draft.own("exposed")[key] = draft.exposed.get(key, Exposure()).grown(before, float(worse + better))


def _pairs(
    draft: Draft, vehicle: str, key: str, treated: int, control: int, treated_h: float, control_h: float
) -> None:
    arm, metric, place = key.split("/")
    known = draft.comparisons.get(key, Comparison())
    one = known.compared(treated, treated_h, control, control_h, draft.policy.tests)
    was = draft.total(vehicle, f"{arm}/{metric}/{place}", treated)
    was_both = draft.total(vehicle, f"{arm}+/{metric}/{place}", treated + control)
    now, both = was + treated, was_both + treated + control
    draft.own("comparisons")[key] = replace(
        one.counted(treated, treated_h, control, draft.policy.tests),
        treated_squares=one.treated_squares + now * now - was * was,
        treated_crossed=one.treated_crossed + now * both - was * was_both,
        control_squares=one.control_squares + both * both - was_both * was_both,
    )


def _spread(draft: Draft, vehicle: str, key: str, events: int, hours: float, times: float) -> None:
    """Counts of a vehicle of which so many times as much as of all is expected."""
    arm, metric, place = key.split("/")
    was, before_h = (
        draft.total(vehicle, f"{arm}~/{metric}/{place}", events),
        draft.total(vehicle, f"{arm}~{metric}//{place}", hours * times),
    )
    draft.own("spreads")[key] = draft.spreads.get(key, Spread()).grown(was, events, before_h, hours * times, times)
