"""Evidence that is being changed: what fold's parts write on."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from cloud.rollouts import filters
from cloud.rollouts.evidence import Evidence, Vehicle
from cloud.rollouts.stages import is_for


class Draft:
    """Evidence that is being changed; mappings are copied when they first are."""

    def __init__(self, evidence: Evidence) -> None:
        self._was = evidence
        self._own: set[Any] = set()
        self.policy, self.bundle, self.counter = evidence.policy, evidence.bundle, evidence.counter
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
    taken: tuple[str, ...]

    def evidence(self) -> Evidence:
        """As a value again."""
        return Evidence(**{one.name: getattr(self, one.name) for one in fields(Evidence)})

    def own(self, name: str) -> Any:
        """A mapping of ours, to be changed."""
        if name not in self._own:
            setattr(self, name, dict(getattr(self, name)))
            self._own.add(name)
        return getattr(self, name)

    def add(self, vehicle: str, arm: str, place: str, seconds: float, counts: Any) -> None:
        """Count in the interval that is under way."""
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

    def total(self, vehicle: str, key: str, more: float) -> float:
        """Add to a vehicle's sum; returns what it was."""
        totals = self.own("totals")
        if ("totals", vehicle) not in self._own:
            totals[vehicle] = dict(totals.get(vehicle, {}))
            self._own.add(("totals", vehicle))
        was: float = totals[vehicle].get(key, 0.0)
        if more:
            totals[vehicle][key] = was + more
        return was

    def concerns(self, one: Vehicle) -> bool:
        """Whether the rollout is about this vehicle, and no later one is."""
        return one.report.hardware not in self.taken and is_for(self.policy, self.hardware, one.report)

    def stratum(self, one: Vehicle) -> str:
        """Vehicles are compared with those alone that any wave would have chosen alike."""
        wheres = [wave.where for wave in self.policy.waves if wave.where]
        facts = one.report.facts() if wheres else {}
        return one.report.hardware + "".join("+" if filters.compiled(where)(facts) else "-" for where in wheres)
