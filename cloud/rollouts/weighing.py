"""What all of the evidence amounts to: one e-value against the release, and those that promotion rests on."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from cloud.rollouts import sequential
from cloud.rollouts.comparison import Comparison, Exposure, Spread, phi_of_arm, phi_of_arms, phi_of_pairs
from cloud.rollouts.editions import EDITIONS
from cloud.rollouts.evidence import ACTIVE_ARM, BESIDE_ARM, JUDGED, OLD_ARM, OWN, PAIRED, SHADOW_ARM, Evidence
from cloud.rollouts.policy import Tests
from edge.updates.evidence import ALL, WORSE


@dataclass(frozen=True, slots=True)
class Cell:
    """One comparison, weighed.

    Attributes:
        kind: active, shadow, paired or judged.
        weight: its part of alpha.
        phi: how unlike Poisson its counts are; 1: like.
        against, for_it: e-values.
    """

    kind: str
    metric: str
    slice: str
    weight: float
    comparison: Comparison
    treated: Exposure
    control: Exposure
    phi: float
    against: float
    for_it: float


def cells(evidence: Evidence) -> Iterator[Cell]:
    """All comparisons in which something can be said, by their name."""
    found = weights(evidence.policy.tests)
    for name in sorted(evidence.comparisons):
        if name in found:
            kind, metric, place = name.split("/")
            yield _cell(evidence, kind, metric, place, found[name])


def cell(evidence: Evidence, kind: str, metric: str, place: str = ALL) -> Cell:
    """One comparison, be there counts or not."""
    return _cell(evidence, kind, metric, place, weights(evidence.policy.tests).get(f"{kind}/{metric}/{place}", 0.0))


def against(evidence: Evidence) -> float:
    """The e-value that the release is worse than it may be: the average over all comparisons and how it was taken."""
    part = EDITIONS[evidence.policy.tests.edition].taking
    total = part * (evidence.taking.against() + evidence.acting.against())
    weight = 2 * part
    for one in cells(evidence):
        total += one.weight * one.against
        weight += one.weight
    return total + max(1.0 - weight, 0.0)  # where nothing was counted, nothing is said: 1


def for_promotion(evidence: Evidence, kind: str) -> float:
    """The e-value that the next step rests on: of the metrics that promote, the least; each has to be shown."""
    promoting = [metric.name for metric in evidence.policy.tests.metrics if metric.promotes]
    return min(cell(evidence, kind, metric).for_it for metric in promoting)


def for_judged(evidence: Evidence) -> float:
    """The e-value that of the pairs that differ the release is not wrong more often than the margin allows."""
    one = cell(evidence, JUDGED, WORSE)
    return float(sequential.mixed(one.comparison.fine, one.phi))


@functools.lru_cache(maxsize=64)
def weights(tests: Tests) -> dict[str, float]:
    """Each comparison's part of alpha, by its name."""
    parts = EDITIONS[tests.edition].parts
    metrics = sum(metric.weight for metric in tests.metrics)
    slices = sum(place.weight for place in tests.slices)
    found = {}
    for place in tests.slices:
        part = place.weight / slices
        for kind in (PAIRED, JUDGED):
            found[f"{kind}/{WORSE}/{place.name}"] = parts[kind] * part
        for metric in tests.metrics:
            for kind in (ACTIVE_ARM, SHADOW_ARM):
                found[f"{kind}/{metric.name}/{place.name}"] = parts[kind] * part * metric.weight / metrics
    return found


_NOTHING: Final = Exposure()
_CONTROLS: Final = {ACTIVE_ARM: OLD_ARM, SHADOW_ARM: BESIDE_ARM, PAIRED: PAIRED, JUDGED: JUDGED}


def _cell(evidence: Evidence, kind: str, metric: str, place: str, weight: float) -> Cell:
    one = evidence.comparisons.get(f"{kind}/{metric}/{place}", Comparison())
    mixture = EDITIONS[evidence.policy.tests.edition].worse
    treated = evidence.exposed.get(f"{kind}/{place}", _NOTHING)
    control = evidence.exposed.get(f"{_CONTROLS[kind]}/{place}", _NOTHING)
    if kind == ACTIVE_ARM:
        of_treated = (one.treated, one.treated_squares, one.treated_crossed)
        of_control = (one.control, one.control_squares, one.control_crossed)
        phi = float(phi_of_arms(of_treated, treated, of_control, control))
        phi_alone = float(phi_of_arm(*of_treated, treated))
    else:
        sums = (one.treated_squares, one.treated_crossed, one.control_squares)
        phi = phi_of_pairs(one.treated, one.treated + one.control, *sums, treated.vehicles)
        phi_alone = phi
    value, fine = one.against(phi, mixture), one.fine_for_it(phi)
    if kind == ACTIVE_ARM and metric in evidence.expected:
        # A past that tells vehicles apart makes the one large, one that misleads leaves the other.
        own, phi_own = _own(evidence, metric, place)
        value, fine = (value + own.against(phi_own, mixture)) / 2.0, (fine + own.fine_for_it(phi_own)) / 2.0
    if treated.vehicles < evidence.policy.tests.least_vehicles:
        value = min(value, 1.0)
    # Refuting either part of the hypothesis does it.
    for_it = (fine + one.rare_for_it(phi_alone)) / 2.0
    return Cell(kind, metric, place, weight, one, treated, control, phi, value, for_it)


def _own(evidence: Evidence, metric: str, place: str) -> tuple[Comparison, float]:
    """The comparison by what was expected of each vehicle, and its phi."""
    one, other = (evidence.spreads.get(f"{arm}/{metric}/{place}", Spread()) for arm in (ACTIVE_ARM, OLD_ARM))
    squares = one.hours_squares, other.hours_squares
    phi = phi_of_arms(one.sums, one.exposure, other.sums, other.exposure, squares=squares)
    return evidence.comparisons.get(f"{OWN}/{metric}/{place}", Comparison()), float(phi)
