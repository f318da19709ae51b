"""The shadow and the waves of a rollout as steps: how far each is, and what it was when it was through."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cloud.rollouts import weighing
from cloud.rollouts.comparison import HOUR_S
from cloud.rollouts.evidence import ACTIVATE, ACTIVE_ARM, SHADOW, SHADOW_ARM, Evidence, Vehicle
from cloud.rollouts.stages import candidates, stages
from edge.updates.evidence import ALL


@dataclass(frozen=True, slots=True)
class Step:
    """The shadow, or a wave; what it counts is in all, earlier waves included.

    Attributes:
        number: 0 is the shadow.
        state: through, now, ended (while it was under way), next (to come).
        told, target: vehicles that were told to go so far, of how many.
        hours, least_hours: device-hours in this step.
        lasted_s: None: it has not begun.
        value, needed: e-value for the next step; None where none is asked for.
        approval: by whom; "" where nobody did.
    """

    number: int
    name: str
    state: str
    told: int
    target: int
    settled: int
    failed: int
    hours: float
    least_hours: float
    lasted_s: float | None
    least_s: float
    value: float | None
    needed: float | None
    needs_approval: bool
    approval: str


def steps(
    evidence: Evidence, concerned: list[Vehicle], waves: Mapping[int, Mapping[str, Any]], now_s: float
) -> list[Step]:
    """The shadow, and each wave.

    Args:
        concerned: vehicles that the rollout is about.
        waves: records of their begins.
    """
    policy = evidence.policy
    found = [_shadow(evidence, waves, concerned, now_s)]
    acting = [one for one in concerned if max(one.mode, one.tried, one.settled) >= ACTIVATE]
    for number, stage in enumerate(stages(policy), 1):
        _, target = candidates(policy, evidence, number, concerned)
        state, since_s, lasted_s = _when(evidence, waves, number, now_s)
        members = [one for one in acting if one.wave <= number] if since_s is not None else []
        following = waves.get(number + 1)
        is_asked_for = state in ("now", "ended") and number < len(policy.waves)
        value = weighing.for_promotion(evidence, ACTIVE_ARM) if is_asked_for else None
        found.append(
            Step(
                number, stage.name, state, len(members), target,
                sum(one.settled >= ACTIVATE and one.failed_s is None for one in members),
                sum(one.failed_s is not None for one in members),
                _hours(evidence, waves, number), stage.least_hours, lasted_s, stage.least_duration_h * HOUR_S,
                following["e_value"] if following is not None else value,
                1 / policy.tests.alpha_promote if is_asked_for or following is not None else None,
                stage.needs_approval, evidence.approved.get(number, ""),
            )
        )  # fmt: skip
    return found


def _shadow(evidence: Evidence, waves: Mapping[int, Mapping[str, Any]], vehicles: list[Vehicle], now_s: float) -> Step:
    policy = evidence.policy
    _, target = candidates(policy, evidence, 0, vehicles)
    state, _, lasted_s = _when(evidence, waves, 0, now_s)
    following = waves.get(1)
    if following is not None:  # it is through: as it was then
        said = following["taking"]
        told, failed = int(said["tried"]), int(said["failed"])
        settled, target = told - failed, max(told, min(target, told))
        hours, value = float(following["exposed_h"].get(f"{SHADOW_ARM}/{ALL}", 0.0)), following["e_value"]
    else:
        told = sum(max(one.mode, one.tried) >= SHADOW for one in vehicles)
        settled = sum(one.settled >= SHADOW and one.failed_s is None for one in vehicles)
        failed = sum(one.failed_s is not None for one in vehicles)
        exposed = evidence.exposed.get(f"{SHADOW_ARM}/{ALL}")
        hours, value = exposed.hours if exposed is not None else 0.0, weighing.for_promotion(evidence, SHADOW_ARM)
    return Step(
        0, "shadow", state, told, target, settled, failed, hours, policy.shadow.least_hours, lasted_s, 0.0,
        value if lasted_s is not None else None, 1 / policy.tests.alpha_promote, False, "",
    )  # fmt: skip


def _when(
    evidence: Evidence, waves: Mapping[int, Mapping[str, Any]], number: int, now_s: float
) -> tuple[str, float | None, float | None]:
    """State of a step, when it began, and how long it lasted so far; None where it did not begin."""
    known, following = waves.get(number), waves.get(number + 1)
    if evidence.wave is None or number > evidence.wave or known is None:
        return "next", None, None
    began_s = float(known["at_s"])
    if following is not None and number < evidence.wave:
        return "through", began_s, float(following["at_s"]) - began_s
    if evidence.ended_s is not None:
        return ("through" if evidence.state == "done" else "ended"), began_s, evidence.ended_s - began_s
    return "now", began_s, max(now_s, evidence.at_s) - began_s


def _hours(evidence: Evidence, waves: Mapping[int, Mapping[str, Any]], number: int) -> float:
    """Device-hours that were acted on the release within a wave."""
    key = f"{ACTIVE_ARM}/{ALL}"
    known, following = waves.get(number), waves.get(number + 1)
    if known is None:
        return 0.0
    exposed = evidence.exposed.get(key)
    until_h = float(following["exposed_h"].get(key, 0.0)) if following else exposed.hours if exposed else 0.0
    return until_h - float(known["exposed_h"].get(key, 0.0))
