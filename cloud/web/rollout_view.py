"""A rollout as its page needs it, out of what the rules know: waves as steps, tests, who runs what, what it waits for.

One pass over the vehicles each; nothing here is made for every vehicle but counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, select

from cloud.rollouts import log, record, rules, weighing
from cloud.rollouts.evidence import ACTIVE_ARM, CREATED, ENDED, PAUSE, RUNNING, SHADOW_ARM, Evidence, Vehicle
from cloud.rollouts.stages import concerned, stages
from cloud.tables import ROLLOUT_LOG
from cloud.web.rollout_steps import Step, steps
from cloud.web.rollout_words import KINDS, PAIRS, PARTS, part, rate

_FAILED_SHOWN: Final = 20
_BUNDLES_SHOWN: Final = 12
_TESTS_SHOWN: Final = 8
# Of a rollout that runs, the log goes on at least once an interval; beyond two and this nobody carries it out.
_QUIET_S: Final = 90.0


@dataclass(frozen=True, slots=True)
class Test:
    """One comparison, in figures and words.

    Attributes:
        are_pairs: what is counted is who was wrong, not how often in so many hours.
    """

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
    are_pairs: bool


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
    vehicles = concerned(evidence.policy, evidence)
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
        steps(evidence, vehicles, waves, now_s),
        _tests(evidence),
        parts(vehicles),
        _runs(vehicles),
        failed[:_FAILED_SHOWN],
        weighing.against(evidence),
        weighing.for_promotion(evidence, kind),
        tuple((said, one.failed, one.tried, one.against()) for said, one in taking if one.tried),
    )


def found(evidence: Evidence, name: str, of_part: str) -> list[Vehicle]:
    """Vehicles whose name holds some letters, of a part or all, by their names."""
    name = name.casefold()
    chosen = [one for one in concerned(evidence.policy, evidence) if name in one.report.vehicle.casefold()]
    if of_part:
        chosen = [one for one in chosen if part(one) == of_part]
    return sorted(chosen, key=lambda one: one.report.vehicle)


def parts(vehicles: Iterable[Vehicle]) -> dict[str, int]:
    """How many vehicles are what within the rollout."""
    counted = Counter(map(part, vehicles))
    return {name: counted[name] for name in PARTS}


def _said(evidence: Evidence, now_s: float) -> str:
    every = stages(evidence.policy)
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
    return f"Wave {evidence.wave} of {len(every)}: {every[evidence.wave - 1].name}."


def _tests(evidence: Evidence) -> list[Test]:
    """Those that weigh most first."""
    cells = record.stop_record(evidence, evidence.at_s)["comparisons"]
    return [
        Test(
            KINDS[one["kind"]], one["metric"], one["slice"], one["treated"], one["treated_h"], one["control"],
            one["control_h"], (rate(one["treated"], one["treated_h"]), rate(one["control"], one["control_h"])),
            one["weight"], one["e_value"], one["e_value_for"], one["kind"] in PAIRS,
        )
        for one in cells
    ]  # fmt: skip


def _runs(vehicles: Iterable[Vehicle]) -> list[Runs]:
    counted: dict[str, Counter[int]] = {}
    for one in vehicles:
        counted.setdefault(one.report.active, Counter())[one.report.stage] += 1
    found = [Runs(bundle, sum(stages.values()), sorted(stages.items())) for bundle, stages in counted.items()]
    return sorted(found, key=lambda one: (-one.vehicles, one.bundle))[:_BUNDLES_SHOWN]
