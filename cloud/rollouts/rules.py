"""The rules of a rollout as two pure functions: what an observation adds to the evidence, and what is to be done then.

    evidence = begin(policy, rollout, bundle, counter, hardware)
    evidence = fold(evidence, Observation(...))            # each time something was observed or commanded
    orders = decide(policy, evidence, now_s)               # carry them out, then:
    evidence = fold(evidence, Observation(now_s, ordered=orders))

No clock, no I/O, and no randomness but the policy's seed: a log of observations gives the same orders again. Until an
order is folded back as carried out, `decide` gives it again. A step at a time: call both until nothing is ordered.

    gates passed -> shadow (wave 0) -> wave 1 -> ... -> done;   at any time: stop, hold, pause, abort

A rollout that is done is to be asked on, as long as no other release follows: vehicles that were away catch up, and a
stop is as possible as before. Where another follows on some of its hardware, it is about the rest alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from cloud.rollouts import weighing
from cloud.rollouts.closing import SILENT
from cloud.rollouts.comparison import HOUR_S, Exposure
from cloud.rollouts.editions import EDITIONS
from cloud.rollouts.evidence import (
    ABORTED,
    ACTIVATE,
    ACTIVE_ARM,
    CREATED,
    DONE,
    ENDED,
    JUDGED,
    PAIRED,
    PAUSED,
    SHADOW,
    SHADOW_ARM,
    STOPPED,
    Evidence,
    Vehicle,
    begin,
)
from cloud.rollouts.folding import fold
from cloud.rollouts.lots import turn
from cloud.rollouts.orders import AskApproval, Assign, Finish, GoOn, Hold, Order, Promote, Stop, Withdraw
from cloud.rollouts.policy import Policy
from cloud.rollouts.record import promotion_record, stop_record
from cloud.rollouts.stages import candidates, concerned, is_overdue, stages
from edge.updates.evidence import ALL, WORSE

__all__ = ["begin", "decide", "fold", "waits_for"]

_MOST_STEPS: Final = 64


def decide(policy: Policy, evidence: Evidence, now_s: float) -> tuple[Order, ...]:
    """What is to be done now; nothing that was done already."""
    if evidence.state == ABORTED:
        return _withdrawn(evidence, evidence.why)
    if evidence.state in (CREATED, STOPPED):
        return ()
    if why := _stops(policy, evidence):
        return (Stop(why, stop_record(evidence, now_s)),)
    if evidence.state == PAUSED:
        return ()
    if why := _holds(policy, evidence, now_s):
        return () if evidence.held == why else (Hold(why),)
    if evidence.held:
        return (GoOn(),)
    if evidence.wave is None:
        return (Promote(0, promotion_record(evidence, 0, now_s)),)
    fleet = _Fleet.of(policy, evidence, now_s)
    if evidence.state == DONE:  # who was away catches up, and the evidence is watched on
        return (*_given_up(policy, evidence), *_assigned(policy, evidence, fleet, now_s))
    if not _lacks(policy, evidence, fleet, now_s) and (further := _next(policy, evidence, now_s)):
        return further
    return (*_given_up(policy, evidence), *_assigned(policy, evidence, fleet, now_s))


def waits_for(policy: Policy, evidence: Evidence, now_s: float) -> tuple[str, ...]:
    """What the next step lacks, for people; empty where it lacks nothing."""
    if evidence.state == CREATED:
        return ("a start",)
    if evidence.state in ENDED:
        return ()
    if evidence.state == PAUSED:
        return ("a resume",)
    if why := _holds(policy, evidence, now_s):
        return (why,)
    if evidence.wave is None:
        return ()
    lacks = _lacks(policy, evidence, _Fleet.of(policy, evidence, now_s), now_s)
    following = evidence.wave + 1
    if not lacks and _waits_for_approval(policy, evidence, following):
        return (f"approval of wave {following}",)
    if evidence.wave and not policy.schedule.is_open(now_s):
        return (*lacks, "the schedule: nothing begins now")
    return lacks


@dataclass(frozen=True, slots=True)
class _Fleet:
    """Vehicles of the stage that is under way, in their turn.

    Attributes:
        members: that are to be in it, those of earlier waves and those that failed included.
    """

    members: tuple[Vehicle, ...]

    @staticmethod
    def of(policy: Policy, evidence: Evidence, now_s: float) -> _Fleet:
        seed = policy.seed or evidence.rollout
        chosen, wanted = candidates(policy, evidence, evidence.wave or 0, concerned(policy, evidence))
        if wanted < len(chosen):
            chosen = _first(chosen, wanted, seed, now_s - policy.completion.away_after_h * HOUR_S)
        chosen.sort(key=lambda one: turn(seed, one.report.vehicle))
        return _Fleet(tuple(chosen))


def _first(vehicles: Iterable[Vehicle], wanted: int, seed: str, here_s: float) -> list[Vehicle]:
    """Those that may act, or failed, keep their place; then who can be reached; of those who shadows; then by lot."""

    def rank(one: Vehicle) -> tuple[object, ...]:
        has_place = one.mode == ACTIVATE or one.failed_s is not None
        return not has_place, one.report.seen_s < here_s, one.mode == 0, *turn(seed, one.report.vehicle)

    return sorted(vehicles, key=rank)[:wanted]


def _stops(policy: Policy, evidence: Evidence) -> str:
    if evidence.stop_said:
        return evidence.stop_said
    value = max(evidence.peak, weighing.against(evidence))
    if value < 1.0 / policy.tests.alpha_stop:
        return ""
    worst = max(weighing.cells(evidence), key=lambda one: one.weight * one.against, default=None)
    taking = max(evidence.taking, evidence.acting, key=lambda one: one.against())
    if worst is None or worst.weight * worst.against < taking.against() * EDITIONS[policy.tests.edition].taking:
        return f"{taking.failed} of {taking.tried} vehicles failed to take the release"
    what = _KINDS[worst.kind]
    one = worst.comparison
    if worst.kind in (PAIRED, JUDGED):
        return f"worse {what}: wrong in {one.treated} of {one.treated + one.control} pairs that differ ({worst.slice})"
    return (
        f"worse {what}: {worst.metric} ({worst.slice}) {one.treated} times in {worst.treated.hours:.3g} h "
        f"against {one.control} in {worst.control.hours:.3g} h"
    )


def _holds(policy: Policy, evidence: Evidence, now_s: float) -> str:
    """Why nothing more may begin; the same words as long as it is the same reason."""
    if not evidence.gates:
        return "no gate has given its verdict"
    for gate, (verdict, why) in sorted(evidence.gates.items()):
        if verdict == "refused" or (verdict == "skipped" and gate not in policy.may_skip) or verdict not in _VERDICTS:
            return f"gate {gate}: {verdict}: {why}"
    if weighing.against(evidence) >= policy.tests.hold_at:
        return f"evidence against the release: its e-value is above {policy.tests.hold_at:g}"
    if evidence.wave and is_overdue(policy, evidence, now_s):
        stage = stages(policy)[evidence.wave - 1]
        return f"wave {evidence.wave} ({stage.name}) has lasted longer than {stage.most_duration_h:g} h"
    return ""


_KINDS: Final = {
    SHADOW_ARM: "in the shadow", ACTIVE_ARM: "acted on", PAIRED: "on the same frames",
    JUDGED: "by the bigger model's word",
}  # fmt: skip
_VERDICTS: Final = ("passed", "refused", "skipped")


def _lacks(policy: Policy, evidence: Evidence, fleet: _Fleet, now_s: float) -> tuple[str, ...]:
    """What is missing for the next step."""
    if not evidence.wave:
        return tuple(_shadow_lacks(policy, evidence, fleet, now_s))
    return tuple(_wave_lacks(policy, evidence, fleet, now_s))


def _shadow_lacks(policy: Policy, evidence: Evidence, fleet: _Fleet, now_s: float) -> Iterable[str]:
    shadow = policy.shadow
    hours = evidence.exposed.get(f"{SHADOW_ARM}/{ALL}", Exposure()).hours
    if hours < shadow.least_hours:
        yield f"{shadow.least_hours - hours:.3g} device-hours more in the shadow"
    lasted_h = (now_s - evidence.wave_began_s) / HOUR_S
    if lasted_h < shadow.least_duration_h:
        yield f"{shadow.least_duration_h - lasted_h:.3g} h more of the shadow"
    through = sum(_is_ready(policy, evidence, one) for one in fleet.members)
    least = max(1, min(shadow.least_vehicles, len(fleet.members)))
    if through < least:
        yield f"{least - through} vehicles more that shadowed for {shadow.each_hours:g} h"
    yield from _evidence_lacks(policy, evidence, SHADOW_ARM)
    one = weighing.cell(evidence, JUDGED, WORSE).comparison
    if one.treated + one.control < shadow.least_judged:
        yield f"{shadow.least_judged - one.treated - one.control} more pairs that differ, judged"
    frames = evidence.frames_same + evidence.frames_differ
    differ = evidence.frames_differ / frames if frames else 0.0
    is_other = differ > shadow.most_differ and 1 not in evidence.approved
    if (shadow.least_judged or is_other) and weighing.for_judged(evidence) < 1.0 / policy.tests.alpha_promote:
        said = f", for they differ on {differ:.0%} of all frames (or an approval of wave 1)" if is_other else ""
        yield f"evidence by judged pairs that the release is not worse{said}"


def _evidence_lacks(policy: Policy, evidence: Evidence, kind: str) -> Iterable[str]:
    needed = 1.0 / policy.tests.alpha_promote
    value = weighing.for_promotion(evidence, kind)
    if value < needed:
        yield f"evidence that the release is not worse: an e-value of {needed:.3g}, {value:.3g} so far"


def _wave_lacks(policy: Policy, evidence: Evidence, fleet: _Fleet, now_s: float) -> Iterable[str]:
    wave = evidence.wave or 0
    every = stages(policy)
    stage = every[wave - 1]
    hours = evidence.exposed.get(f"{ACTIVE_ARM}/{ALL}", Exposure()).hours - evidence.wave_began_active_s / HOUR_S
    if hours < stage.least_hours:
        yield f"{stage.least_hours - hours:.3g} device-hours more on the release in wave {wave}"
    lasted_h = (now_s - evidence.wave_began_s) / HOUR_S
    if lasted_h < stage.least_duration_h:
        yield f"{stage.least_duration_h - lasted_h:.3g} h more of wave {wave}"
    away_s = policy.completion.away_after_h * HOUR_S
    here = [one for one in fleet.members if now_s - one.report.seen_s <= away_s]
    settled = sum(_is_through(evidence, one) for one in here)
    if fleet.members and not here:
        yield f"vehicles of wave {wave}: none can be reached"
    elif settled < policy.completion.share * len(here):
        yield f"vehicles of wave {wave}: {settled} of {len(here)} that can be reached are settled"
    elif lasted_h * HOUR_S < away_s and (
        untold := sum(one.mode != ACTIVATE and not _is_through(evidence, one) for one in here)
    ):
        yield f"vehicles of wave {wave}: {untold} that can be reached are not told to act yet"
    if wave < len(policy.waves):
        yield from _evidence_lacks(policy, evidence, ACTIVE_ARM)


def _is_through(evidence: Evidence, one: Vehicle) -> bool:
    """It proved to take the release, or will not take it."""
    return one.settled >= ACTIVATE or one.failed_s is not None or one.report.refuses(evidence.bundle, evidence.counter)


def _is_ready(policy: Policy, evidence: Evidence, one: Vehicle) -> bool:
    """It has shadowed long enough itself; or it acted on this very bundle before the rollout began."""
    if one.report.active == evidence.bundle:
        return True
    return one.failed_s is None and one.settled >= SHADOW and one.shadow_s >= policy.shadow.each_hours * HOUR_S


def _next(policy: Policy, evidence: Evidence, now_s: float) -> tuple[Order, ...]:
    wave = (evidence.wave or 0) + 1
    if wave > len(stages(policy)):
        return (Finish("all waves are through"),)
    if _waits_for_approval(policy, evidence, wave):
        return () if evidence.asked == wave else (AskApproval(wave),)
    return (Promote(wave, promotion_record(evidence, wave, now_s)),)


def _waits_for_approval(policy: Policy, evidence: Evidence, wave: int) -> bool:
    every = stages(policy)
    return wave <= len(every) and every[wave - 1].needs_approval and wave not in evidence.approved


def _assigned(policy: Policy, evidence: Evidence, fleet: _Fleet, now_s: float) -> tuple[Order, ...]:
    """Who is told to go on, in their turn."""
    wave = evidence.wave or 0
    told: list[Order] = []
    room = _room(policy, evidence) if wave and policy.schedule.is_open(now_s) else 0
    for one in fleet.members:
        name = one.report.vehicle
        if one.report.hardware in evidence.taken:
            continue
        if one.failed_s is not None:
            if _may_retry(policy, one, now_s) and (one.mode != ACTIVATE or room > 0):
                told.append(Assign(name, one.mode, wave))
        elif one.mode == 0 and (one.tried or not one.report.refuses(evidence.bundle, evidence.counter)):
            told.append(Assign(name, SHADOW, wave))
        elif wave and one.mode == SHADOW and room > 0 and _is_ready(policy, evidence, one):
            told.append(Assign(name, ACTIVATE, wave))
            room -= 1
    return tuple(told)


def _room(policy: Policy, evidence: Evidence) -> float:
    """How many vehicles more may be told to act on the release."""
    if policy.pace is None:
        return math.inf
    steps = min(int(evidence.clean_s // (policy.pace.step_h * HOUR_S)), _MOST_STEPS)
    most = math.floor(policy.pace.start * policy.pace.factor**steps)
    return most - sum(one.tried >= ACTIVATE or one.mode == ACTIVATE for one in evidence.vehicles.values())


def _may_retry(policy: Policy, one: Vehicle, now_s: float) -> bool:
    """Only where the release failed before the vehicle acted on it."""
    if one.mode == 0 or one.failed_s is None or one.active_s > 0 or one.is_silent:
        return False
    return one.attempts <= policy.retry.times and now_s - one.failed_s >= policy.retry.after_h * HOUR_S


def _given_up(policy: Policy, evidence: Evidence) -> Sequence[Order]:
    """Vehicles on which the release failed for good; one that is not heard may come back."""
    return [
        Withdraw(name, one.failed_why)
        for name, one in sorted(evidence.vehicles.items())
        if one.mode
        and one.failed_s is not None
        and not one.failed_why.startswith(SILENT)
        and (one.active_s > 0 or one.attempts > policy.retry.times)
    ]


def _withdrawn(evidence: Evidence, why: str) -> tuple[Order, ...]:
    """Nobody begins any more; who acts on the release already, goes on."""
    return tuple(
        Withdraw(name, why)
        for name, one in sorted(evidence.vehicles.items())
        if one.mode and one.report.active != evidence.bundle
    )
