"""What becomes of an interval that is over: who fell silent, who took the release, and the tests go on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from cloud.rollouts import weighing
from cloud.rollouts.arms import Arms, differ, hours_of
from cloud.rollouts.comparison import HOUR_S
from cloud.rollouts.draft import Draft
from cloud.rollouts.evidence import (
    ABORTED,
    ACTIVATE,
    ACTIVE_ARM,
    JUDGED,
    OLD_ARM,
    RUNNING,
    SHADOW,
    SHADOW_ARM,
    STOPPED,
    Vehicle,
)
from edge.updates.evidence import ALL
from roadfuse.v1.updates_pb2 import Stage

SILENT: Final = "silent"
_TAKEN: Final = (Stage.STAGE_IDLE, Stage.STAGE_CONFIRMED)
_TRIED: Final = (Stage.STAGE_SHADOWING, Stage.STAGE_ARMED, Stage.STAGE_PROBATION, Stage.STAGE_CONFIRMED)
# After a retry the vehicle still says why it refused, until it has heard of the retry.
_RETRY_GRACE_S: Final = 600.0
_MOST_CURVE: Final = 600
_LEAST_PEERS: Final = 5


def close(draft: Draft, at_s: float) -> None:
    """The interval is over."""
    _find_silent(draft, at_s)
    _settle(draft, at_s)
    _compare(draft)
    _compare_judged(draft)
    draft.pending, draft.pending_judged = {}, {}
    if draft.state in (STOPPED, ABORTED) or draft.started_s is None:
        return
    now = draft.evidence()
    value = weighing.against(now)
    draft.peak = max(draft.peak, value)
    if draft.state == RUNNING and draft.wave and not draft.held and value < draft.policy.tests.hold_at:
        draft.clean_s += draft.policy.tests.interval_s
    kind = ACTIVE_ARM if draft.wave else SHADOW_ARM
    draft.curve = _thinned((*draft.curve, (at_s, value, weighing.for_promotion(now, kind))))


def _find_silent(draft: Draft, at_s: float) -> None:
    after_s = _silence_s(draft)
    for name, one in list(draft.vehicles.items()):
        if one.is_driving and not one.is_silent and at_s - one.report.seen_s > after_s:
            draft.own("vehicles")[name] = replace(one, is_silent=True)
            if draft.started_s is not None and one.report.seen_s + after_s >= draft.started_s:
                arm = ACTIVE_ARM if one.mode == ACTIVATE else OLD_ARM
                # It was driving for so long as far as one knows; nobody else counts that time.
                draft.add(name, arm, ALL, after_s, {SILENT: 1})


def _silence_s(draft: Draft) -> float:
    """What is heard within an interval is known when it is over: less than two intervals can't be told."""
    return max(draft.policy.silence.after_s, 2.0 * draft.policy.tests.interval_s)


def _settle(draft: Draft, at_s: float) -> None:
    """Each vehicle that took the release, or failed to, counts once a mode."""
    peers = [one for one in draft.vehicles.values() if one.mode != ACTIVATE and one.is_driving]
    silent = sum(one.is_silent for one in peers) / len(peers) if len(peers) >= _LEAST_PEERS else 0.0
    tried, failed = {SHADOW: 0, ACTIVATE: 0}, {SHADOW: 0, ACTIVATE: 0}
    for name in sorted(draft.vehicles):
        one = draft.vehicles[name]
        if one.failed_why.startswith(SILENT) and not one.is_silent:  # it is back; that it was away stays counted
            one = draft.own("vehicles")[name] = replace(one, failed_s=None, failed_why="")
        if one.mode == 0 or one.failed_s is not None or one.report.hardware in draft.taken:
            continue
        why = _failure(draft, one, at_s)
        if why:
            one = replace(one, failed_s=at_s, failed_why=why)
        elif one.settled < one.mode and _has_taken(draft, one):
            one = replace(one, settled=one.mode)
        else:
            continue
        if one.tried < one.mode:
            tried[one.mode] += 1
            failed[one.mode] += bool(why)
            one = replace(one, tried=one.mode)
        draft.own("vehicles")[name] = one
    # Where others fall silent too, it is not the release: the network is away.
    null = min(draft.policy.tests.most_failed + silent, 0.98)
    draft.taking = draft.taking.grown(tried[SHADOW], failed[SHADOW], null)
    draft.acting = draft.acting.grown(tried[ACTIVATE], failed[ACTIVATE], null)


def _failure(draft: Draft, one: Vehicle, at_s: float) -> str:
    said, waited_s = one.report, at_s - one.ordered_s
    if said.refuses(draft.bundle, draft.counter) and said.active != draft.bundle and said.seen_s >= one.ordered_s:
        is_old = one.attempts > 1 and waited_s < _RETRY_GRACE_S
        return "" if is_old else said.why or "refused"
    if one.mode == ACTIVATE and one.settled < ACTIVATE and one.is_silent and said.seen_s >= one.ordered_s:
        return f"{SILENT}: not heard for {_silence_s(draft):g} s while driving"
    return ""


def _has_taken(draft: Draft, one: Vehicle) -> bool:
    said = one.report
    if one.mode == ACTIVATE:
        return said.active == draft.bundle and said.stage in _TAKEN
    return one.shadow_s > 0 or said.active == draft.bundle or (said.staged == draft.bundle and said.stage in _TRIED)


def _compare(draft: Draft) -> None:
    """Put the interval's counts into their arms."""
    arms = Arms(draft)
    for name in sorted(draft.pending):
        known = draft.vehicles.get(name)
        if known is None or not draft.concerns(known):
            continue
        counted = draft.pending[name]
        shadow, active, old = (counted.get(arm, {}) for arm in (SHADOW_ARM, ACTIVE_ARM, OLD_ARM))
        if shadow or active:
            more = {"shadow_s": hours_of(shadow, ALL), "active_s": hours_of(active, ALL)}
            known = replace(
                known,
                shadow_s=known.shadow_s + more["shadow_s"] * HOUR_S,
                active_s=known.active_s + more["active_s"] * HOUR_S,
            )
            draft.own("vehicles")[name] = known
        if shadow and old:
            arms.pair(name, shadow, old)
        if active:
            arms.add(name, draft.stratum(known), ACTIVE_ARM, active)
        elif old and known.mode != ACTIVATE and known.active_s == 0.0:
            arms.add(name, draft.stratum(known), OLD_ARM, old)
    arms.test()


def _compare_judged(draft: Draft) -> None:
    for name in sorted(draft.pending_judged):
        known = draft.vehicles.get(name)
        if known is None or not draft.concerns(known):
            continue
        for place, (worse, better) in sorted(draft.pending_judged[name].items()):
            if worse + better == 0 or place not in {one.name for one in draft.policy.tests.slices}:
                continue
            cap = draft.policy.tests.cap
            # One scene may hold many labels: of each vehicle and interval so many count.
            differ(draft, JUDGED, name, place, min(worse, cap), min(better, cap))


def _thinned(curve: tuple[Any, ...]) -> tuple[Any, ...]:
    return curve if len(curve) <= _MOST_CURVE else (*curve[: -_MOST_CURVE // 2 : 2], *curve[-_MOST_CURVE // 2 :])
