"""What is kept of a decision, so that anyone can see later why: hypothesis, effect, alpha, evidence, who approved."""

from __future__ import annotations

import math
from typing import Any

from cloud.rollouts import weighing
from cloud.rollouts.comparison import Taking
from cloud.rollouts.evidence import ACTIVE_ARM, SHADOW_ARM, Evidence
from cloud.rollouts.weighing import Cell
from edge.updates.evidence import ALL


def stop_record(evidence: Evidence, now_s: float) -> dict[str, Any]:
    """Of a stop."""
    tests = evidence.policy.tests
    return {
        "hypothesis": f"no metric in any slice is over {tests.effect:g} times as frequent as with the old bundles, "
        f"and at most {tests.most_failed:.1%} of vehicles fail to take the release",
        "effect": tests.effect,
        "alpha": tests.alpha_stop,
        "e_value": _finite(max(evidence.peak, weighing.against(evidence))),
        "needed": 1.0 / tests.alpha_stop,
        "said": evidence.stop_said,
        **_evidence(evidence, now_s),
    }


def promotion_record(evidence: Evidence, wave: int, now_s: float) -> dict[str, Any]:
    """Of the begin of a wave; 0 is the shadow."""
    tests = evidence.policy.tests
    kind = SHADOW_ARM if wave <= 1 else ACTIVE_ARM
    promoting = ", ".join(metric.name for metric in tests.metrics if metric.promotes)
    return {
        "hypothesis": f"{promoting}: at least {tests.margin:g} times as frequent as with the old bundles, "
        f"plus {tests.tolerable_per_hour:g} an hour (refuted)",
        "margin": tests.margin,
        "tolerable_per_hour": tests.tolerable_per_hour,
        "alpha": tests.alpha_promote,
        "e_value": _finite(weighing.for_promotion(evidence, kind)) if wave else None,
        "needed": 1.0 / tests.alpha_promote if wave else None,
        "against": _finite(weighing.against(evidence)),
        "approved_by": evidence.approved.get(wave, ""),
        "gates": {gate: list(said) for gate, said in sorted(evidence.gates.items())},
        **_evidence(evidence, now_s),
    }


def _evidence(evidence: Evidence, now_s: float) -> dict[str, Any]:
    cells = sorted(
        weighing.cells(evidence), key=lambda one: (-one.weight * one.against, one.kind, one.metric, one.slice)
    )
    return {
        "at_s": now_s,
        "rollout": evidence.rollout,
        "bundle": evidence.bundle,
        "release": evidence.counter,
        "wave": evidence.wave,
        "exposed_h": {name: one.hours for name, one in sorted(evidence.exposed.items()) if name.endswith(f"/{ALL}")},
        "taking": _taking(evidence.taking),
        "acting": _taking(evidence.acting),
        "approvals": {str(wave): by for wave, by in sorted(evidence.approved.items())},
        "comparisons": [_cell(one) for one in cells],
    }


def _taking(taking: Taking) -> dict[str, Any]:
    return {"tried": taking.tried, "failed": taking.failed, "e_value": _finite(taking.against())}


def _cell(one: Cell) -> dict[str, Any]:
    return {
        "kind": one.kind,
        "metric": one.metric,
        "slice": one.slice,
        "treated": one.comparison.treated,
        "treated_h": one.treated.hours,
        "treated_vehicles": one.treated.vehicles,
        "control": one.comparison.control,
        "control_h": one.control.hours,
        "control_vehicles": one.control.vehicles,
        "ratio": _ratio(one),
        "phi": one.phi,
        "weight": one.weight,
        "e_value": _finite(one.against),
        "e_value_for": _finite(one.for_it),
    }


def _ratio(one: Cell) -> float | None:
    """Of the rates, as counted; None where the old one is 0."""
    if not one.comparison.control or not one.treated.hours:
        return None
    return one.comparison.treated / one.treated.hours / (one.comparison.control / one.control.hours)


def _finite(value: float) -> float:
    return value if math.isfinite(value) else 1e300
