"""How an observation becomes evidence.

Counts wait until their interval is over (closing.py); then each vehicle's are capped, put into arms (arms.py), and the
tests go on. So the order of observations within an interval does not matter. What people command and what was ordered
counts at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

from cloud.rollouts import orders
from cloud.rollouts.closing import close
from cloud.rollouts.comparison import HOUR_S, Exposure
from cloud.rollouts.draft import Draft
from cloud.rollouts.editions import EDITIONS
from cloud.rollouts.evidence import (
    ABORT,
    ABORTED,
    ACTIVE_ARM,
    APPROVE,
    CREATED,
    DONE,
    ENDED,
    OLD_ARM,
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
from cloud.rollouts.own_rates import expected
from edge.updates.evidence import ALL


def fold(evidence: Evidence, observation: Observation) -> Evidence:
    """The evidence with what was new. Nothing of what is given changes."""
    draft = Draft(evidence)
    at_s = max(observation.at_s, evidence.at_s)
    interval_s = evidence.policy.tests.interval_s
    interval = math.floor(at_s / interval_s)
    if interval > draft.interval >= 0:
        close(draft, interval * interval_s)
    draft.interval, draft.at_s = interval, at_s
    _hear(draft, observation.reports)
    _count(draft, observation.increments)
    _judge(draft, observation.judged)
    for gate in observation.gates:
        draft.gates = {**draft.gates, gate.gate: (gate.verdict, gate.why)}
    for command in observation.commands:
        _obey(draft, command)
    if observation.taken is not None:
        draft.taken = observation.taken
    _carried_out(draft, observation.ordered)
    return draft.evidence()


def _hear(draft: Draft, reports: Iterable[VehicleReport]) -> None:
    for report in reports:
        vehicles = draft.own("vehicles")
        known = vehicles.get(report.vehicle)
        if known is not None and _age(report) < _age(known.report):
            continue
        known = known or Vehicle(report)
        driving = {"driving": True, "online": True, "gone": known.is_driving}.get(report.state, False)
        is_silent = known.is_silent and report.seen_s <= known.report.seen_s
        vehicles[report.vehicle] = replace(known, report=report, is_driving=driving, is_silent=is_silent)


def _count(draft: Draft, increments: Iterable[Increment]) -> None:
    for one in increments:
        if one.bundle == draft.bundle:
            arm = SHADOW_ARM if one.is_shadow else ACTIVE_ARM
        elif one.is_shadow:
            continue  # another rollout's
        else:
            arm = OLD_ARM
        draft.add(one.vehicle, arm, one.slice, one.seconds, one.counts)


def _judge(draft: Draft, judged: Iterable[Judged]) -> None:
    for one in judged:
        pending = draft.own("pending_judged")
        slices = dict(pending.get(one.vehicle, {}))
        for place in {ALL, *one.slices}:
            worse, better = slices.get(place, (0, 0))
            slices[place] = [worse + one.worse, better + one.better]
        pending[one.vehicle] = slices


def _obey(draft: Draft, command: Command) -> None:
    draft.said = (*draft.said, (draft.at_s, command))
    if command.kind == START and draft.state == CREATED:
        draft.state, draft.started_s = RUNNING, draft.at_s
    elif command.kind == PAUSE and draft.state == RUNNING:
        draft.state, draft.why = PAUSED, command.why
    elif command.kind == RESUME and draft.state == PAUSED:
        draft.state, draft.why = RUNNING, ""
    elif command.kind == RESUME and draft.state == RUNNING:
        draft.wave_began_s = draft.at_s  # of a wave that took too long: it may take as long again
    elif command.kind == ABORT and draft.state not in ENDED:  # what is done can't be aborted, only stopped
        draft.state, draft.ended_s = ABORTED, draft.at_s
        draft.why = f"aborted by {command.by}" + (f": {command.why}" if command.why else "")
    elif command.kind == STOP and draft.state not in (STOPPED, ABORTED):
        draft.stop_said = f"stopped by {command.by}" + (f": {command.why}" if command.why else "")
    elif command.kind == APPROVE:
        draft.own("approved").setdefault(command.wave, command.by)
    elif command.kind == RETRY:
        vehicles = draft.own("vehicles")
        for name in [command.vehicle] if command.vehicle else sorted(vehicles):
            if name in vehicles and vehicles[name].failed_s is not None:
                vehicles[name] = replace(vehicles[name], mode=0, failed_s=None, failed_why="", attempts=1)


def _carried_out(draft: Draft, ordered: Iterable[orders.Order]) -> None:
    for order in ordered:
        match order:
            case orders.Assign(name, mode, wave):
                vehicles = draft.own("vehicles")
                known = vehicles.get(name) or Vehicle(VehicleReport(name))
                is_again = mode == known.mode or (known.mode == 0 and known.tried > 0)
                attempts = known.attempts + 1 if is_again else 1
                vehicles[name] = replace(
                    known,
                    mode=mode,
                    wave=wave,
                    ordered_s=draft.at_s,
                    attempts=attempts,
                    failed_s=None,
                    failed_why="",
                )
            case orders.Withdraw(name, _):
                vehicles = draft.own("vehicles")
                if name in vehicles:
                    vehicles[name] = replace(vehicles[name], mode=0)
            case orders.Stop(why, _):
                _end(draft, STOPPED, why)
                vehicles = draft.own("vehicles")
                vehicles.update((name, replace(one, mode=0)) for name, one in vehicles.items() if one.mode)
            case orders.Finish(why):
                if draft.state not in ENDED:
                    _end(draft, DONE, why)
            case orders.Hold(why):
                draft.held = why
            case orders.GoOn():
                draft.held = ""
            case orders.Promote(wave, _):
                draft.wave, draft.wave_began_s = wave, draft.at_s
                if wave == 1:
                    _expect(draft)
                draft.wave_began_active_s = draft.exposed.get(f"{ACTIVE_ARM}/{ALL}", Exposure()).hours * HOUR_S
            case orders.AskApproval(wave):
                draft.asked = wave


def _expect(draft: Draft) -> None:
    """From here on vehicles are compared by what each counted until now."""
    if not EDITIONS[draft.policy.tests.edition].has_own_rates or f"{ACTIVE_ARM}/{ALL}" in draft.exposed:
        return
    for metric in draft.policy.tests.metrics:
        events, hours = f"{OLD_ARM}/{metric.name}/{ALL}", f"{OLD_ARM}//{ALL}"
        past = {name: (one.get(events, 0.0), one[hours]) for name, one in draft.totals.items() if one.get(hours)}
        if metric.promotes and (found := expected(past)):
            draft.own("expected")[metric.name] = found


def _end(draft: Draft, state: str, why: str) -> None:
    draft.state, draft.why, draft.ended_s = state, why, draft.at_s


def _age(report: VehicleReport) -> tuple[float, str]:
    """What reports of a vehicle are ordered by; the same for any order in which they come."""
    return report.seen_s, repr(
        (report.stage, report.state, report.active, report.staged, report.refused, report.why, report.refused_until)
    )
