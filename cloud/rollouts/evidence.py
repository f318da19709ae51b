"""What a rollout knows: observations come in, evidence is what they amount to. Both are values, and JSON in the log.

An observation is what was new since the last one: words of vehicles, counts, verdicts, what people commanded, and which
orders were carried out. Within an interval (policy.tests.interval_s) their order does not matter.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from cloud.errors import RolloutError
from cloud.rollouts import orders
from cloud.rollouts.comparison import Comparison, Exposure, Spread, Taking
from cloud.rollouts.orders import Order
from cloud.rollouts.policy import Policy
from roadfuse.v1.updates_pb2 import Mode

# Commands.
START: Final = "start"
PAUSE: Final = "pause"
RESUME: Final = "resume"
ABORT: Final = "abort"
APPROVE: Final = "approve"
RETRY: Final = "retry"
STOP: Final = "stop"  # as if the evidence had: nobody may run the release
COMMANDS: Final = (START, PAUSE, RESUME, ABORT, APPROVE, RETRY, STOP)
# States of a rollout.
CREATED: Final = "created"
RUNNING: Final = "running"
PAUSED: Final = "paused"
STOPPED: Final = "stopped"
ABORTED: Final = "aborted"
DONE: Final = "done"
ENDED: Final = (STOPPED, ABORTED, DONE)
# Modes of an assignment.
SHADOW: Final = int(Mode.MODE_SHADOW)
ACTIVATE: Final = int(Mode.MODE_ACTIVATE)
# Of an arm, within an interval: counts of one vehicle there.
SHADOW_ARM: Final = "shadow"  # the release, deciding beside the active bundle
BESIDE_ARM: Final = "beside"  # the active bundle, on the same vehicle and in the same interval
ACTIVE_ARM: Final = "active"  # the release, acted on
PAIRED: Final = "paired"  # one frame, decided by both, on which one of them is wrong by what the vehicle itself knows
JUDGED: Final = "judged"  # pairs that differ, of release and active bundle
OWN: Final = "own"  # as acted on, compared by what was expected of each vehicle
OLD_ARM: Final = "old"  # any other bundle, acted on by vehicles that never acted on the release


@dataclass(frozen=True, slots=True)
class VehicleReport:
    """What is known of a vehicle now; the whole of it, each time.

    Attributes:
        labels: that people gave it.
        state: driving, parked, offline, gone; offline was announced, gone is a connection lost without a word.
        stage: roadfuse.v1.Stage.
        active, staged: bundle ids.
        refused: the bundle that `why` is about.
        seen_s: UTC when it was heard last.
        refused_until: releases of `refused` with a counter up to this are refused; 0: all of them.
    """

    vehicle: str
    hardware: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    software: str = ""
    state: str = ""
    stage: int = 0
    active: str = ""
    staged: str = ""
    counter: int = 0
    refused: str = ""
    why: str = ""
    seen_s: float = 0.0
    refused_until: int = 0

    def refuses(self, bundle: str, counter: int) -> bool:
        """Whether it says that it won't take a release."""
        return self.refused == bundle and (not self.refused_until or counter <= self.refused_until)

    def facts(self) -> dict[str, str]:
        """As filters see it."""
        facts = {
            "vehicle": self.vehicle, "hardware": self.hardware, "software": self.software, "state": self.state,
            "active": self.active, "counter": str(self.counter),
        }  # fmt: skip
        facts.update((f"label.{name}", value) for name, value in self.labels.items())
        return facts


@dataclass(frozen=True, slots=True)
class Increment:
    """What came to a vehicle's tallies of one bundle in one role, within one slice."""

    vehicle: str
    bundle: str
    is_shadow: bool
    slice: str
    seconds: float
    frames: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Judged:
    """Pairs of one scene where release and active bundle differed, by the bigger model's word.

    Attributes:
        slices: that the scene belongs to; `all` need not be named.
        worse, better: labels that the release alone told wrongly, or the active one alone.
    """

    vehicle: str
    slices: tuple[str, ...] = ()
    worse: int = 0
    better: int = 0


@dataclass(frozen=True, slots=True)
class Command:
    """What somebody wants.

    Attributes:
        kind: one of COMMANDS.
        by: who.
        wave: of an approval: 1 is the first wave.
        vehicle: of a retry; "": all that failed.
    """

    kind: str
    by: str
    why: str = ""
    wave: int = 0
    vehicle: str = ""


@dataclass(frozen=True, slots=True)
class GateResult:
    """A gate's verdict on the release: passed, refused or skipped."""

    gate: str
    verdict: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class Observation:
    """What was new.

    Attributes:
        at_s: UTC of this observation; never before the one before.
        ordered: orders that were carried out.
        taken: classes of hardware that a later rollout has, of one that is done; None: as before.
    """

    at_s: float
    reports: tuple[VehicleReport, ...] = ()
    increments: tuple[Increment, ...] = ()
    judged: tuple[Judged, ...] = ()
    commands: tuple[Command, ...] = ()
    gates: tuple[GateResult, ...] = ()
    ordered: tuple[Order, ...] = ()
    taken: tuple[str, ...] | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON, empty parts left out; `of_dict` makes it back."""
        values: dict[str, Any] = {"at_s": self.at_s}
        for name in ("reports", "increments", "judged", "commands", "gates"):
            if parts := getattr(self, name):
                values[name] = [_lean(one) for one in parts]
        if self.ordered:
            values["ordered"] = [orders.to_dict(one) for one in self.ordered]
        if self.taken is not None:
            values["taken"] = list(self.taken)
        return values

    @staticmethod
    def of_dict(values: Mapping[str, Any]) -> Observation:
        """From JSON.

        Raises:
            RolloutError: it is no observation.
        """
        try:
            judged = ({**one, "slices": tuple(one.get("slices", ()))} for one in values.get("judged", ()))
            return Observation(
                at_s=float(values["at_s"]),
                reports=tuple(VehicleReport(**one) for one in values.get("reports", ())),
                increments=tuple(Increment(**one) for one in values.get("increments", ())),
                judged=tuple(Judged(**one) for one in judged),
                commands=tuple(Command(**one) for one in values.get("commands", ())),
                gates=tuple(GateResult(**one) for one in values.get("gates", ())),
                ordered=tuple(orders.of_dict(one) for one in values.get("ordered", ())),
                taken=tuple(values["taken"]) if "taken" in values else None,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise RolloutError(f"expected an observation, got {str(error)[:100]}") from None


@dataclass(frozen=True, slots=True)
class Vehicle:
    """A vehicle within the rollout.

    Attributes:
        report: its last word.
        mode, wave, ordered_s: of its assignment; mode 0: it has none.
        shadow_s, active_s: exposed seconds of the release here.
        attempts: how often it was told to take the release in this mode.
        settled: the mode in which it has proven to take the release.
        tried: the mode in which it counts as one that was tried (`Evidence.taking`).
        failed_s, failed_why: when the release failed here; None where it did not.
        is_driving: by its last word: it was neither parked nor did it announce to go offline.
        is_silent: it was driving, and is not heard any more.
    """

    report: VehicleReport
    mode: int = 0
    wave: int = 0
    ordered_s: float = 0.0
    shadow_s: float = 0.0
    active_s: float = 0.0
    attempts: int = 0
    settled: int = 0
    tried: int = 0
    failed_s: float | None = None
    failed_why: str = ""
    is_driving: bool = False
    is_silent: bool = False


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that the rules know; `rules.fold` makes the next one.

    Attributes:
        bundle, counter, hardware: of the release.
        state: created, running, paused, stopped, aborted, done.
        wave: that is under way; None before the shadow, 0 the shadow, 1 the first wave.
        wave_began_s, wave_began_active_s: when, and what all had acted on the release until then.
        held: why nothing more begins; "" where nothing holds.
        stop_said: by whom and why, of a stop that somebody commanded.
        asked: the wave that approval was asked for last; 0: none.
        approved: wave -> who approved it.
        gates: gate -> (verdict, why).
        clean_s: for which waves went on with clean evidence; paces the rollout.
        vehicles: all that were heard of.
        pending: of the interval that is under way: vehicle -> arm -> slice -> [seconds, {metric: count}].
        pending_judged: vehicle -> slice -> [worse, better].
        comparisons: "shadow|active|own|paired|judged/metric/slice" -> what the tests know.
        taking, acting: how vehicles fared while they took the release: into the shadow, and to act on it.
        frames_same, frames_differ: decided by both in the shadow, alike or not.
        totals: vehicle -> "arm/metric/slice" -> counts, "arm//slice" -> seconds: for how unlike vehicles are.
        exposed: "arm/slice" -> whose time it was.
        expected: metric -> vehicle -> its rate to that of all, by what it counted before the first wave.
        spreads: "active|old/metric/slice" -> how unlike vehicles are around that, since then.
        curve: (at_s, e-value against the release, e-value for promotion) of intervals, thinned; for people.
        peak: the largest e-value against the release so far.
        said: commands, with their time.
        taken: classes of hardware that a later rollout has: what vehicles do there is not this one's any more.
    """

    rollout: str
    bundle: str
    counter: int
    hardware: tuple[str, ...]
    policy: Policy
    state: str = CREATED
    why: str = ""
    at_s: float = 0.0
    interval: int = -1
    started_s: float | None = None
    ended_s: float | None = None
    wave: int | None = None
    wave_began_s: float = 0.0
    wave_began_active_s: float = 0.0
    held: str = ""
    stop_said: str = ""
    asked: int = 0
    approved: Mapping[int, str] = field(default_factory=dict)
    gates: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    clean_s: float = 0.0
    vehicles: Mapping[str, Vehicle] = field(default_factory=dict)
    pending: Mapping[str, Any] = field(default_factory=dict)
    pending_judged: Mapping[str, Any] = field(default_factory=dict)
    comparisons: Mapping[str, Comparison] = field(default_factory=dict)
    taking: Taking = field(default_factory=Taking)
    acting: Taking = field(default_factory=Taking)
    frames_same: int = 0
    frames_differ: int = 0
    totals: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    exposed: Mapping[str, Exposure] = field(default_factory=dict)
    expected: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    spreads: Mapping[str, Spread] = field(default_factory=dict)
    curve: tuple[tuple[float, float, float], ...] = ()
    peak: float = 0.0
    said: tuple[tuple[float, Command], ...] = ()
    taken: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As JSON; `of_dict` makes it back, bit for bit."""
        values = {one.name: getattr(self, one.name) for one in dataclasses.fields(self)}
        values["hardware"], values["taken"] = list(self.hardware), list(self.taken)
        values["policy"] = self.policy.to_dict()
        values["approved"] = {str(wave): by for wave, by in self.approved.items()}
        values["gates"] = {gate: list(said) for gate, said in self.gates.items()}
        values["vehicles"] = {name: _lean(one) | {"report": _lean(one.report)} for name, one in self.vehicles.items()}
        values["comparisons"] = {name: _lean(one) for name, one in self.comparisons.items()}
        values["taking"], values["acting"] = _lean(self.taking), _lean(self.acting)
        values["exposed"] = {name: _lean(one) for name, one in self.exposed.items()}
        values["spreads"] = {name: _lean(one) | {"exposure": _lean(one.exposure)} for name, one in self.spreads.items()}
        values["curve"] = [list(point) for point in self.curve]
        values["said"] = [[at_s, _lean(command)] for at_s, command in self.said]
        return values

    @staticmethod
    def of_dict(values: Mapping[str, Any]) -> Evidence:
        """From JSON.

        Raises:
            RolloutError: it is no evidence.
        """
        found = dict(values)
        try:
            found["hardware"], found["taken"] = tuple(found["hardware"]), tuple(found.get("taken", ()))
            found["policy"] = Policy.of_kept(found["policy"])
            found["approved"] = {int(wave): by for wave, by in found["approved"].items()}
            found["gates"] = {gate: (said[0], said[1]) for gate, said in found["gates"].items()}
            found["vehicles"] = {
                name: Vehicle(**{**one, "report": VehicleReport(**one["report"])})
                for name, one in found["vehicles"].items()
            }
            found["comparisons"] = {name: Comparison(**_tuples(one)) for name, one in found["comparisons"].items()}
            found["taking"] = Taking(**_tuples(found["taking"]))
            found["acting"] = Taking(**_tuples(found["acting"]))
            found["exposed"] = {name: Exposure(**one) for name, one in found["exposed"].items()}
            found["spreads"] = {
                name: Spread(**{**one, "exposure": Exposure(**one["exposure"])})
                for name, one in found.get("spreads", {}).items()
            }
            found["curve"] = tuple((point[0], point[1], point[2]) for point in found["curve"])
            found["said"] = tuple((at_s, Command(**command)) for at_s, command in found["said"])
            return Evidence(**found)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise RolloutError(f"expected a rollout's evidence, got {str(error)[:100]}") from None


def begin(policy: Policy, rollout: str, bundle: str, counter: int, hardware: tuple[str, ...]) -> Evidence:
    """Of a rollout that was just created."""
    return Evidence(rollout, bundle, counter, tuple(hardware), policy)


def _tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(one) if isinstance(one, list) else one for name, one in values.items()}


def _lean(value: Any) -> dict[str, Any]:
    """A dataclass's fields that are not as by default."""
    found = {}
    for one in dataclasses.fields(value):
        now = getattr(value, one.name)
        default = one.default if one.default_factory is dataclasses.MISSING else one.default_factory()
        if default is dataclasses.MISSING or now != default:
            found[one.name] = list(now) if isinstance(now, tuple) else now
    return found
