"""A rollout's stages: the shadow (0), its waves, at the end those that were held back; whom each may take, how many."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Final

from cloud.rollouts import filters
from cloud.rollouts.comparison import HOUR_S
from cloud.rollouts.evidence import DONE, Evidence, Vehicle, VehicleReport
from cloud.rollouts.lots import is_held_back
from cloud.rollouts.policy import Policy, Wave

HELD_BACK: Final = "held back"


def stages(policy: Policy) -> tuple[Wave, ...]:
    """The waves, and at the end those that were held back."""
    if policy.control.joins_at_end and policy.control.share > 0:
        return (*policy.waves, Wave(HELD_BACK, least_hours=0.0))
    return policy.waves


def is_overdue(policy: Policy, evidence: Evidence, now_s: float) -> bool:
    """Whether the wave that is under way has lasted longer than it may."""
    if not evidence.wave or evidence.state == DONE:
        return False
    return now_s - evidence.wave_began_s > stages(policy)[evidence.wave - 1].most_duration_h * HOUR_S


def concerned(policy: Policy, evidence: Evidence) -> list[Vehicle]:
    """Vehicles that the rollout is about."""
    return [one for one in evidence.vehicles.values() if is_for(policy, evidence.hardware, one.report)]


def is_for(policy: Policy, hardware: Collection[str], report: VehicleReport) -> bool:
    """Whether a rollout is about a vehicle.

    Args:
        hardware: classes that the release is for; none: all.
    """
    if hardware and report.hardware not in hardware:
        return False
    return not policy.where or filters.compiled(policy.where)(report.facts())


def candidates(
    policy: Policy, evidence: Evidence, number: int, vehicles: Sequence[Vehicle]
) -> tuple[list[Vehicle], int]:
    """Of vehicles that the rollout is about: who may be in a stage, and how many of them then are.

    Those of earlier stages are in it too.
    """
    stage = stages(policy)[number - 1] if number else None
    if stage is not None and stage.vehicles:
        named = frozenset(stage.vehicles)
        chosen = [one for one in vehicles if one.report.vehicle in named]
        return chosen, len(chosen)
    chosen = list(vehicles)
    if stage is not None and stage.where:
        is_meant = filters.compiled(stage.where)
        # Who was chosen by a filter is not lost when the filter, asked anew, does not match any more.
        chosen = [one for one in chosen if (one.mode > 0 and one.wave == number) or is_meant(one.report.facts())]
    wanted = _wanted(policy, stage, len(chosen))
    if number <= len(policy.waves):
        seed = policy.seed or evidence.rollout
        chosen = [one for one in chosen if not is_held_back(seed, one.report.vehicle, policy.control.share)]
    return chosen, min(wanted, len(chosen))


def _wanted(policy: Policy, stage: Wave | None, of: int) -> int:
    if stage is None:
        shadow = policy.shadow
        return min(max(math.ceil(shadow.share * of), shadow.least_vehicles), shadow.most_vehicles)
    wanted = math.ceil(stage.share * of)
    return wanted if stage.count is None else min(wanted, stage.count)
