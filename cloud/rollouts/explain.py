"""Why a rollout is where it is, in words: what it waits for, which test says what, who takes part, who approved."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

from cloud.rollouts import record, rules, weighing
from cloud.rollouts.evidence import (
    ACTIVE_ARM,
    BESIDE_ARM,
    ENDED,
    JUDGED,
    OLD_ARM,
    PAIRED,
    SHADOW_ARM,
    Evidence,
    Vehicle,
)
from cloud.rollouts.stages import stages
from edge.updates.evidence import ALL
from roadfuse.v1.updates_pb2 import Mode

_ARMS: Final = {
    ACTIVE_ARM: "acting on the release", OLD_ARM: "acting on other bundles", SHADOW_ARM: "in the shadow",
    BESIDE_ARM: "on the active bundle beside it",
}  # fmt: skip
_SHOWN: Final = 5


def facts(evidence: Evidence, now_s: float) -> dict[str, Any]:
    """All that `lines` says, for programs: the record of a stop that would be made now, and the rest beside it."""
    policy = evidence.policy
    return {
        **record.stop_record(evidence, now_s),
        "state": evidence.state,
        "why": evidence.why,
        "held": evidence.held,
        "waits_for": list(rules.waits_for(policy, evidence, now_s)),
        "waves": [wave.name for wave in stages(policy)],
        "vehicles": dict(Counter(map(_part, evidence.vehicles.values()))),
        "failed": {
            one.report.vehicle: one.failed_why for one in evidence.vehicles.values() if one.failed_s is not None
        },
        "asked_approval_of": evidence.asked,
        "commands": [
            {
                "at_s": at_s,
                "kind": said.kind,
                "by": said.by,
                "why": said.why,
                "wave": said.wave,
                "vehicle": said.vehicle,
            }
            for at_s, said in evidence.said
        ],
        "gates": {gate: list(said) for gate, said in sorted(evidence.gates.items())},
        "clean_s": evidence.clean_s,
        "curve": [list(point) for point in evidence.curve],
    }


def lines(evidence: Evidence, now_s: float) -> Iterator[str]:
    """One fact a line."""
    yield f"rollout    {evidence.rollout}: release {evidence.counter}, bundle {evidence.bundle[:16]}"
    yield f"state      {_state(evidence, now_s)}"
    for lack in rules.waits_for(evidence.policy, evidence, now_s):
        yield f"waits for  {lack}"
    yield from _evidence(evidence)
    for arm, words in _ARMS.items():
        exposed = evidence.exposed.get(f"{arm}/{ALL}")
        if exposed is not None and exposed.hours > 0:
            yield f"exposure   {exposed.hours:.4g} h {words}, {exposed.vehicles} vehicles"
    parts = Counter(map(_part, evidence.vehicles.values()))
    yield "vehicles   " + (", ".join(f"{count} {part}" for part, count in sorted(parts.items())) or "none was heard of")
    yield from _failed(evidence)
    for gate, (verdict, why) in sorted(evidence.gates.items()):
        yield f"gate       {gate}: {verdict}{f': {why}' if why else ''}"
    for wave, by in sorted(evidence.approved.items()):
        yield f"approved   wave {wave} by {by}"
    for at_s, said in evidence.said:
        of = f" wave {said.wave}" if said.wave else f" {said.vehicle}" if said.vehicle else ""
        yield f"said       {_time(at_s)} {said.kind}{of} by {said.by}{f': {said.why}' if said.why else ''}"


def _state(evidence: Evidence, now_s: float) -> str:
    if evidence.state in ENDED:
        return f"{evidence.state}: {evidence.why}"
    every = stages(evidence.policy)
    where = "not begun"
    if evidence.wave is not None:
        name = every[evidence.wave - 1].name if evidence.wave else "the shadow"
        since_h = (now_s - evidence.wave_began_s) / 3_600
        where = f"wave {evidence.wave} of {len(every)} ({name}), for {since_h:.3g} h"
    held = f"; nothing more begins: {evidence.held}" if evidence.held else ""
    return f"{evidence.state}, {where}{held}{f': {evidence.why}' if evidence.why else ''}"


def _evidence(evidence: Evidence) -> Iterator[str]:
    """The e-values against their boundaries; of the single tests those that weigh most."""
    tests = evidence.policy.tests
    against = weighing.against(evidence)
    yield (
        f"against    e-value {against:.4g}, at most {max(evidence.peak, against):.4g} so far; nothing begins from "
        f"{tests.hold_at:g}, stopped at {1 / tests.alpha_stop:g} (alpha {tests.alpha_stop:g})"
    )
    kind = ACTIVE_ARM if evidence.wave else SHADOW_ARM
    yield (
        f"for it     e-value {weighing.for_promotion(evidence, kind):.4g} that it is not {tests.margin:g} times worse; "
        f"the next wave needs {1 / tests.alpha_promote:g} (alpha {tests.alpha_promote:g})"
    )
    cells = sorted(weighing.cells(evidence), key=lambda one: -one.weight * one.against)
    for one in cells[:_SHOWN]:
        if one.comparison.treated or one.comparison.control:
            yield (
                f"test       {one.kind} {one.metric} ({one.slice}): {_counts(one)}, e-value {one.against:.4g}, "
                f"weight {one.weight:.3g}"
            )
    for name, taking in (("taking it", evidence.taking), ("acting on it", evidence.acting)):
        if taking.tried:
            failed = f"{taking.failed} of {taking.tried} vehicles failed"
            yield f"test       {name}: {failed}, e-value {taking.against():.4g}"


def _counts(one: weighing.Cell) -> str:
    known = one.comparison
    if one.kind in (PAIRED, JUDGED):
        return f"wrong in {known.treated} of {known.treated + known.control} pairs that differ"
    return f"{known.treated} in {one.treated.hours:.4g} h against {known.control} in {one.control.hours:.4g} h"


def _failed(evidence: Evidence) -> Iterator[str]:
    failed = sorted((one for one in evidence.vehicles.values() if one.failed_s is not None), key=_name)
    for one in failed[:_SHOWN]:
        yield f"failed     {one.report.vehicle}: {one.failed_why}"
    if len(failed) > _SHOWN:
        yield f"failed     and {len(failed) - _SHOWN} more"


def _name(one: Vehicle) -> str:
    return one.report.vehicle


def _part(one: Vehicle) -> str:
    """What a vehicle is within the rollout."""
    if one.failed_s is not None:
        return "failed"
    if one.mode == Mode.MODE_ACTIVATE:
        return "run it" if one.settled >= Mode.MODE_ACTIVATE else "are told to run it"
    if one.mode == Mode.MODE_SHADOW:
        return "shadow it" if one.settled >= Mode.MODE_SHADOW else "are told to shadow it"
    return "have no part"


def _time(at_s: float) -> str:
    return f"{datetime.datetime.fromtimestamp(at_s, datetime.UTC):%Y-%m-%d %H:%M:%S}"
