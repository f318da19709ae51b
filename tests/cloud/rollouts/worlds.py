"""A rollout on a simulated fleet, in memory: to see what a policy would do before it meets vehicles.

Vehicles drive some hours of the day, have rates of their own, and obey orders when they drive. What happens is drawn by
the world's seed; the rules are the real ones, fed as the cloud feeds them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cloud.rollouts.evidence import (
    ENDED,
    START,
    STOPPED,
    Command,
    Evidence,
    GateResult,
    Increment,
    Observation,
    VehicleReport,
    begin,
)
from cloud.rollouts.orders import Assign, Order, Promote, Stop, Withdraw
from cloud.rollouts.policy import Policy
from cloud.rollouts.rules import decide, fold
from edge.updates.evidence import ALL
from roadfuse.v1.updates_pb2 import Mode, Stage

OLD: Final = "old"
NEW: Final = "new"
_DAY_H: Final = 24.0
_HOUR_S: Final = 3_600.0
_MOST_STEPS: Final = 20  # of the rules in a row


@dataclass(frozen=True, slots=True)
class World:
    """A fleet, and what is wrong with the release.

    Attributes:
        driving: share of the day that each vehicle drives, in one stretch.
        rate_per_h: events of `metric` per device-hour with the old bundle, on average.
        unlike: how much vehicles' own rates differ: standard deviation to mean (gamma-distributed); 0: not at all.
        ratio: of the release's rate where it is acted on.
        shadow_ratio: where it is in the shadow; None: the same.
        slices: share of the hours that belong to a slice.
        slice_ratios: on top of `ratio`, in a slice alone.
        burst_per_h, burst_h, burst_rate_per_h: faults of single vehicles, under any bundle: how often one begins, how
            long it lasts, and events while it does.
        falls_silent: chance that a vehicle is never heard again once it acts on the release.
        refuses: share of vehicles on which the release fails its self-test.
    """

    vehicles: int = 1_000
    driving: float = 0.2
    metric: str = "late"
    rate_per_h: float = 1.0
    unlike: float = 0.0
    ratio: float = 1.0
    shadow_ratio: float | None = None
    slices: Mapping[str, float] = field(default_factory=dict)
    slice_ratios: Mapping[str, float] = field(default_factory=dict)
    burst_per_h: float = 0.0
    burst_h: float = 3.0
    burst_rate_per_h: float = 6.0
    falls_silent: float = 0.0
    refuses: float = 0.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """What came of it.

    Attributes:
        stopped_h, waves_h: when, in hours from the start.
        acted: vehicles that ever acted on the release.
        log: all observations, in order: folded again they give the same.
    """

    evidence: Evidence
    stopped_h: float | None
    waves_h: Mapping[int, float]
    acted: int
    log: tuple[Observation, ...]


def rehearse(
    policy: Policy,
    world: World,
    hours: float,
    *,
    said: Sequence[tuple[float, Command]] = (),
    keeps_log: bool = False,
) -> Rehearsed:
    """The rollout from its start, for at most so many hours.

    Args:
        said: what people command, with the hour; in order.
    """
    fleet = _Fleet(world, policy.tests.interval_s)
    evidence = begin(policy, f"rehearsal {world.seed}", NEW, 1, ())
    log: list[Observation] = []
    waves: dict[int, float] = {}

    def take(observation: Observation) -> None:
        nonlocal evidence
        evidence = fold(evidence, observation)
        if keeps_log:
            log.append(observation)

    take(Observation(0.0, fleet.all_reports(), commands=(Command(START, "rehearsal"),), gates=(_PASSED,)))
    now_s, step_s = 0.0, policy.tests.interval_s
    while evidence.state not in ENDED and now_s < hours * _HOUR_S:
        for _ in range(_MOST_STEPS):
            orders = decide(policy, evidence, now_s)
            if not orders:
                break
            fleet.obey(orders)
            waves.update((one.wave, now_s / _HOUR_S) for one in orders if isinstance(one, Promote))
            take(Observation(now_s, ordered=orders))
        now_s += step_s
        take(fleet.step(now_s))
        due = [command for at_h, command in said if now_s - step_s < at_h * _HOUR_S <= now_s]
        if due:
            take(Observation(now_s, commands=tuple(due)))
    stopped = evidence.ended_s / _HOUR_S if evidence.state == STOPPED and evidence.ended_s is not None else None
    return Rehearsed(evidence, stopped, waves, int(fleet.has_acted.sum()), tuple(log))


_PASSED: Final = GateResult("golden", "passed")


class _Fleet:
    """The vehicles; arrays with one place each."""

    def __init__(self, world: World, step_s: float) -> None:
        self._world, self._step_h = world, step_s / _HOUR_S
        self._rng = rng = np.random.default_rng(world.seed)
        count = world.vehicles
        self.names = [f"car-{number:05d}" for number in range(count)]
        self._place = {name: place for place, name in enumerate(self.names)}
        shape = 1.0 / world.unlike**2 if world.unlike else 1.0
        own = rng.gamma(shape, 1.0 / shape, count) if world.unlike else np.ones(count)
        self._rate: NDArray[np.float64] = world.rate_per_h * own
        self._begins_h = rng.random(count) * _DAY_H
        self._mode = np.zeros(count, np.int64)
        self._stage = np.full(count, int(Stage.STAGE_IDLE))
        self._acts = np.zeros(count, bool)
        self.has_acted = np.zeros(count, bool)
        self._is_gone = np.zeros(count, bool)
        self._refuses = rng.random(count) < world.refuses
        self._falls_silent = rng.random(count) < world.falls_silent
        self._in_burst = np.zeros(count, bool)
        self._drove = np.zeros(count, bool)

    def all_reports(self) -> tuple[VehicleReport, ...]:
        return tuple(self._report(place, "parked", 0.0) for place in range(len(self.names)))

    def obey(self, orders: tuple[Order, ...]) -> None:
        for order in orders:
            if isinstance(order, Assign):
                self._mode[self._place[order.vehicle]] = order.mode
            elif isinstance(order, Withdraw):
                self._mode[self._place[order.vehicle]] = 0
            elif isinstance(order, Stop):
                self._mode[:] = 0
                self._acts[:] = False

    def step(self, now_s: float) -> Observation:
        """One interval, which ends now; told a moment before its end."""
        world, rng = self._world, self._rng
        since = (now_s / _HOUR_S - self._begins_h) % _DAY_H
        drives = (since < world.driving * _DAY_H) & ~self._is_gone
        self._is_gone |= self._acts & self._falls_silent  # it said that it takes over; then nothing any more
        drives &= ~self._is_gone
        self._move(drives)
        self._in_burst &= rng.random(len(drives)) < np.exp(-self._step_h / world.burst_h)
        self._in_burst |= drives & (rng.random(len(drives)) < world.burst_per_h * self._step_h)
        increments: list[Increment] = []
        names = sorted(world.slices)
        in_slice = rng.random(len(drives))
        bounds = np.cumsum([world.slices[name] for name in names])
        places = np.searchsorted(bounds, in_slice, side="right")
        factor = np.array([*(world.slice_ratios.get(name, 1.0) for name in names), 1.0])[places]
        shadow_ratio = world.ratio if world.shadow_ratio is None else world.shadow_ratio
        rate = self._rate + world.burst_rate_per_h * self._in_burst
        active = rng.poisson(rate * np.where(self._acts, world.ratio * factor, 1.0) * self._step_h)
        shadow = rng.poisson(rate * shadow_ratio * factor * self._step_h)
        shadows = self._stage == Stage.STAGE_SHADOWING
        for place in np.flatnonzero(drives):
            bundle = NEW if self._acts[place] else OLD
            within = names[places[place]] if places[place] < len(names) else ""
            self._tell(increments, place, bundle, False, int(active[place]), within)
            if shadows[place]:
                self._tell(increments, place, NEW, True, int(shadow[place]), within)
        reports = [self._report(place, "driving", now_s) for place in np.flatnonzero(drives)]
        parked = self._drove & ~drives & ~self._is_gone
        reports += [self._report(place, "parked", now_s) for place in np.flatnonzero(parked)]
        self._drove = drives
        return Observation(now_s, tuple(reports), tuple(increments))

    def _move(self, drives: NDArray[np.bool_]) -> None:
        """What vehicles do about their orders, a stage at a step."""
        stage = self._stage
        confirmed = drives & (stage == Stage.STAGE_CONFIRMED)
        probation = drives & (stage == Stage.STAGE_PROBATION)
        armed = drives & (self._mode == Mode.MODE_ACTIVATE) & (stage == Stage.STAGE_SHADOWING)
        fresh = drives & (self._mode > 0) & (stage == Stage.STAGE_IDLE) & ~self._acts
        stage[confirmed] = Stage.STAGE_IDLE
        stage[probation] = Stage.STAGE_CONFIRMED
        stage[armed] = Stage.STAGE_PROBATION
        self._acts |= armed
        self.has_acted |= armed
        stage[fresh & ~self._refuses] = Stage.STAGE_SHADOWING
        stage[fresh & self._refuses] = Stage.STAGE_REFUSED
        stage[(self._mode == 0) & ~self._acts & (stage != Stage.STAGE_REFUSED)] = Stage.STAGE_IDLE

    def _tell(self, to: list[Increment], place: Any, bundle: str, is_shadow: bool, events: int, within: str) -> None:
        counts = {self._world.metric: events} if events else {}
        told_s, vehicle = self._step_h * _HOUR_S, self.names[place]
        to.extend(
            Increment(vehicle, bundle, is_shadow, name, told_s, 0, counts)
            for name in ((ALL, within) if within else (ALL,))
        )

    def _report(self, place: Any, state: str, now_s: float) -> VehicleReport:
        stage = int(self._stage[place])
        refused = stage == Stage.STAGE_REFUSED
        return VehicleReport(
            self.names[place],
            "x86",
            state=state,
            stage=stage,
            active=NEW if self._acts[place] else OLD,
            staged=NEW if stage == Stage.STAGE_SHADOWING else "",
            refused=NEW if refused else "",
            why="self-test failed" if refused else "",
            seen_s=now_s,
        )
