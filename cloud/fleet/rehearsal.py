"""A rollout rehearsed: a release with known faults goes through a policy on a simulated fleet."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from cloud.fleet.host import Host
from cloud.fleet.policy import hastened
from cloud.fleet.scenario import HOUR_S, Plant, Scenario
from cloud.rollouts import book, evidence, rules, stop_line
from cloud.rollouts.policy import Policy

BY: Final = "rehearsal"
_STEP_S: Final = 2.0
# After the end, to see who still hears of it.
_AFTER_S: Final = 8.0
_WITHOUT_GATES: Final = "rehearsal: both releases have the same engines, what differs is planted"


@dataclass(slots=True)
class Outcome:
    """What came of a rehearsal.

    Attributes:
        hours: of the fleet's time.
        acted: vehicles that ever acted on the release.
        stops: seconds from a stop notice until each linked vehicle had it.
        late: vehicles that began to act on it more than a second after the notice.
        failed: calls of vehicles that failed and were made again.
        rows: (hours, driving, shadowing, probation, running the release, ever acted on it), each few seconds.
    """

    rollout: str = ""
    state: str = ""
    why: str = ""
    hours: float = 0.0
    acted: int = 0
    running: int = 0
    reports: int = 0
    check_ins: int = 0
    failed: int = 0
    late: int = 0
    stops: list[float] = field(default_factory=list)
    rows: list[tuple[float, int, int, int, int, int]] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """For people and programs; of the stops their quantiles."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "stops"}
        if self.stops:
            median, late, last = np.quantile(self.stops, (0.5, 0.99, 1.0)).tolist()
            values["stop"] = {"vehicles": len(self.stops), "p50_s": median, "p99_s": late, "max_s": last}
        return values


def rehearse(
    folder: Path,
    scenario: Scenario,
    policy: Policy,
    plant: Plant,
    *,
    bundle: Path | None = None,
    hours: float,
    stop_at_h: float | None = None,
    processes: int = 2,
    say: Callable[[str], object] = lambda _: None,
) -> Outcome:
    """Send a release through a policy.

    Args:
        folder: for the rehearsal's cloud; must not be there.
        plant: what is planted in the release.
        bundle: to release; None: the reference bundle under another version.
        hours: of the fleet's time, at most.
        stop_at_h: when somebody stops the release, whatever the evidence says.
        say: takes lines for people.

    Raises:
        CloudError: a part did not start, or ended.
    """
    outcome = Outcome()
    quick, notes = hastened(policy, scenario.speed)
    for note in notes:
        say(note)
    with Host(folder) as host:
        active, release = host.release(None, "active"), host.release(bundle, "candidate")
        say(f"{scenario.vehicles} vehicles, time runs {scenario.speed:g} times as fast; the cloud is in {host.data}")
        host.fleet(scenario, active, {release.bundle: plant}, processes)
        with host.engine.begin() as connection:
            outcome.rollout = book.create(connection, release.counter, quick, BY, without_gates=_WITHOUT_GATES).id
            book.command(connection, outcome.rollout, evidence.Command(evidence.START, BY))
        say(f"rollout {outcome.rollout} of release {release.counter}, planted: {plant}")
        _follow(host, outcome, release.bundle, hours, stop_at_h, say)
        with host.engine.connect() as connection:
            known = book.evidence(connection, outcome.rollout)
        if waits := rules.waits_for(known.policy, known, time.time()):
            outcome.why = "it waits for " + "; ".join(waits)
    return outcome


def _follow(
    host: Host, outcome: Outcome, bundle: str, hours: float, stop_at_h: float | None, say: Callable[[str], object]
) -> None:
    said: dict[int, dict[str, Any]] = {}
    ended_s: float | None = None
    say(f"{'hours':>7} {'driving':>8} {'shadow':>8} {'probation':>10} {'running it':>11} {'ever acted':>11}  rollout")
    while ended_s is None or time.monotonic() < ended_s + _AFTER_S:
        for number, words in host.told(_STEP_S):
            outcome.stops += words["stops"]
            said[number] = words
        if not said:
            continue
        _sum(outcome, said, bundle)
        with host.engine.connect() as connection:
            found = book.get(connection, outcome.rollout)
        outcome.state, outcome.why = found.state, found.why
        row = outcome.rows[-1]
        say(f"{row[0]:7.2f} {row[1]:8} {row[2]:8} {row[3]:10} {row[4]:11} {row[5]:11}  {found.state} {found.why}")
        if ended_s is None and stop_at_h is not None and outcome.hours >= stop_at_h:
            stop_at_h = None
            with host.engine.begin() as connection:
                stop_line.stop(connection, bundle, "told to, as part of the rehearsal")
        if ended_s is None and (found.is_over or outcome.hours >= hours):
            ended_s = time.monotonic()


def _sum(outcome: Outcome, said: dict[int, dict[str, Any]], bundle: str) -> None:
    def total(name: str, key: str | None = None) -> int:
        values = (words[name] for words in said.values())
        return sum(int(value) if key is None else int(value.get(key, 0)) for value in values)

    outcome.hours = max(words["now_s"] for words in said.values()) / HOUR_S
    outcome.reports, outcome.check_ins = total("reports"), total("check_ins")
    outcome.failed, outcome.late = total("failed"), total("late")
    outcome.acted, outcome.running = total("acted", bundle), total("active", bundle)
    shadowing, probation = total("stages", "STAGE_SHADOWING"), total("stages", "STAGE_PROBATION")
    outcome.rows.append(
        (round(outcome.hours, 3), total("driving"), shadowing, probation, outcome.running, outcome.acted)
    )
