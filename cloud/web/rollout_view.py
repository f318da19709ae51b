"""A rollout as its page needs it, out of what the rules know: waves as steps, tests, who runs what, what it waits for.

One pass over the vehicles each; nothing here is made for every vehicle but counts.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, select

from cloud.rollouts import filters, log, record, rules, weighing
from cloud.rollouts.comparison import HOUR_S
from cloud.rollouts.evidence import ACTIVE_ARM, CREATED, ENDED, PAUSE, RUNNING, SHADOW_ARM, Evidence, Vehicle
from cloud.rollouts.folding import ACTIVATE, SHADOW
from cloud.rollouts.lots import is_held_back
from cloud.rollouts.policy import Wave
from cloud.tables import ROLLOUT_LOG
from cloud.web.rollout_words import KINDS, PARTS, part, rate
from edge.updates.evidence import ALL

_FAILED_SHOWN: Final = 20
_BUNDLES_SHOWN: Final = 12
_TESTS_SHOWN: Final = 8
# Of a rollout that runs, the log goes on at least once an interval; beyond two and this nobody carries it out.
_QUIET_S: Final = 90.0


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


@dataclass(frozen=True, slots=True)
class Test:
    """One comparison, in figures and words."""

    kind: str
    metric: str
    slice: str
    treated: int
    treated_h: float
    control: int
    control_h: float
    rates: tuple[str, str]
    weight: float
    against: float
    for_it: float


@dataclass(frozen=True, slots=True)
class Runs:
    """A bundle, and how many vehicles run it at which stage."""

    bundle: str
    vehicles: int
    stages: list[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class View:
    """All of it but the log.

    Attributes:
        said: where it is, in a sentence.
        waits_for: what the next step lacks.
        approve: the wave that waits for approval; 0: none does.
        quiet_s: for how long nothing was heard of who carries rollouts out; 0 while that is as it should be.
        failed: the first of them; `parts` has how many there are.
    """

    evidence: Evidence
    said: str
    waits_for: tuple[str, ...]
    approve: int
    quiet_s: float
    steps: list[Step]
    tests: list[Test]
    parts: dict[str, int]
    runs: list[Runs]
    failed: list[Vehicle]
    against: float
    for_it: float
    taking: tuple[tuple[str, int, int, float], ...]

    @property
    def is_over(self) -> bool:
        """Whether it ended."""
        return self.evidence.state in ENDED

    @property
    def tests_shown(self) -> int:
        """How many of the tests are shown at once."""
        return _TESTS_SHOWN


def records(connection: Connection, rollout: str) -> list[dict[str, Any]]:
    """Records of promotions and stops, the first one first."""
    rows = ROLLOUT_LOG.c
    query = select(rows.content).where(rows.rollout == rollout, rows.kind == log.RECORDED).order_by(rows.number)
    found = connection.execute(query).scalars()
    return [said for said in found if said.get("what") in ("promote", "stop") and isinstance(said.get("record"), dict)]


def began(records: Sequence[Mapping[str, Any]]) -> dict[int, Mapping[str, Any]]:
    """Wave -> the record of its begin."""
    return {int(said["wave"]): said["record"] for said in records if said["what"] == "promote"}


def view(evidence: Evidence, waves: Mapping[int, Mapping[str, Any]], now_s: float) -> View:
    """What the page says.

    Args:
        waves: as of `began`.
    """
    vehicles = concerned(evidence)
    waits_for = rules.waits_for(evidence.policy, evidence, now_s)
    following = (evidence.wave or 0) + 1
    is_asked = evidence.state not in ENDED and evidence.asked == following and following not in evidence.approved
    failed = sorted((one for one in vehicles if one.failed_s is not None), key=lambda one: one.report.vehicle)
    quiet_s = now_s - evidence.at_s
    is_quiet = evidence.state not in (CREATED, *ENDED) and quiet_s > 2 * evidence.policy.tests.interval_s + _QUIET_S
    kind = ACTIVE_ARM if evidence.wave else SHADOW_ARM
    taking = (("took it into the shadow", evidence.taking), ("took it to act on it", evidence.acting))
    return View(
        evidence,
        _said(evidence, now_s),
        waits_for,
        following if is_asked else 0,
        quiet_s if is_quiet else 0.0,
        _steps(evidence, vehicles, waves, now_s),
        _tests(evidence),
        parts(vehicles),
        _runs(vehicles),
        failed[:_FAILED_SHOWN],
        weighing.against(evidence),
        weighing.for_promotion(evidence, kind),
        tuple((said, one.failed, one.tried, one.against()) for said, one in taking if one.tried),
    )


def concerned(evidence: Evidence) -> list[Vehicle]:
    """Vehicles that the rollout is about."""
    return [one for one in evidence.vehicles.values() if rules.concerns(evidence.policy, evidence, one)]


def found(evidence: Evidence, name: str, of_part: str) -> list[Vehicle]:
    """Vehicles whose name holds some letters, of a part or all, by their names."""
    name = name.casefold()
    chosen = [one for one in concerned(evidence) if name in one.report.vehicle.casefold()]
    if of_part:
        chosen = [one for one in chosen if part(one) == of_part]
    return sorted(chosen, key=lambda one: one.report.vehicle)


def parts(vehicles: Iterable[Vehicle]) -> dict[str, int]:
    """How many vehicles are what within the rollout."""
    counted = Counter(map(part, vehicles))
    return {name: counted[name] for name in PARTS}


def _said(evidence: Evidence, now_s: float) -> str:
    stages = rules.stages(evidence.policy)
    if evidence.state == CREATED:
        return "Not started. It begins in the shadow, where nobody acts on the release."
    if evidence.state in ENDED:
        return evidence.why or evidence.state
    if evidence.state != RUNNING:
        who = next((said.by for _, said in reversed(evidence.said) if said.kind == PAUSE), "")
        why = f": {evidence.why}" if evidence.why else ". What runs, runs on; nothing more begins"
        return f"Paused{f' by {who}' if who else ''}{why}."
    if evidence.held:
        return f"Nothing more begins: {evidence.held}."
    if evidence.wave is None:
        return "Started; the shadow has not begun."
    if not evidence.wave:
        return "In the shadow: the release decides beside the active bundle, and nobody acts on it."
    return f"Wave {evidence.wave} of {len(stages)}: {stages[evidence.wave - 1].name}."


def _steps(
    evidence: Evidence, concerned: list[Vehicle], waves: Mapping[int, Mapping[str, Any]], now_s: float
) -> list[Step]:
    policy = evidence.policy
    stages = rules.stages(policy)
    seed = policy.seed or evidence.rollout
    free = [one for one in concerned if not is_held_back(seed, one.report.vehicle, policy.control.share)]
    steps = [_shadow(evidence, waves, concerned, len(free), now_s)]
    acting = [one for one in concerned if max(one.mode, one.tried, one.settled) >= ACTIVATE]
    for number, stage in enumerate(stages, 1):
        is_last = number > len(policy.waves)
        target = len(concerned) if is_last else _target(stage, concerned, free)
        state, since_s, lasted_s = _when(evidence, waves, number, now_s)
        members = [one for one in acting if one.wave <= number] if since_s is not None else []
        following = waves.get(number + 1)
        is_asked_for = state in ("now", "ended") and number < len(policy.waves)
        value = weighing.for_promotion(evidence, ACTIVE_ARM) if is_asked_for else None
        steps.append(
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
    return steps


def _shadow(
    evidence: Evidence, waves: Mapping[int, Mapping[str, Any]], vehicles: list[Vehicle], free: int, now_s: float
) -> Step:
    policy = evidence.policy
    shadow = policy.shadow
    target = min(max(math.ceil(shadow.share * len(vehicles)), shadow.least_vehicles), shadow.most_vehicles, free)
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
        0, "shadow", state, told, target, settled, failed, hours, shadow.least_hours, lasted_s, 0.0,
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


def _target(stage: Wave, concerned: Sequence[Vehicle], free: Sequence[Vehicle]) -> int:
    """How many vehicles run the release when a wave is through."""
    if stage.vehicles:
        named = frozenset(stage.vehicles)
        return sum(one.report.vehicle in named for one in concerned)
    matching, of_free = len(concerned), len(free)
    if stage.where:
        is_meant = filters.compiled(stage.where)
        matching = sum(is_meant(one.report.facts()) for one in concerned)
        of_free = sum(is_meant(one.report.facts()) for one in free)
    wanted = math.ceil(stage.share * matching)
    return min(wanted if stage.count is None else min(wanted, stage.count), of_free)


def _tests(evidence: Evidence) -> list[Test]:
    """Those that weigh most first."""
    cells = record.stop_record(evidence, evidence.at_s)["comparisons"]
    return [
        Test(
            KINDS[one["kind"]], one["metric"], one["slice"], one["treated"], one["treated_h"], one["control"],
            one["control_h"], (rate(one["treated"], one["treated_h"]), rate(one["control"], one["control_h"])),
            one["weight"], one["e_value"], one["e_value_for"],
        )
        for one in cells
    ]  # fmt: skip


def _runs(vehicles: Iterable[Vehicle]) -> list[Runs]:
    counted: dict[str, Counter[int]] = {}
    for one in vehicles:
        counted.setdefault(one.report.active, Counter())[one.report.stage] += 1
    found = [Runs(bundle, sum(stages.values()), sorted(stages.items())) for bundle, stages in counted.items()]
    return sorted(found, key=lambda one: (-one.vehicles, one.bundle))[:_BUNDLES_SHOWN]
