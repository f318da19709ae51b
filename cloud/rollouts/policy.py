"""What a rollout may do, and what it has to prove: written by people in TOML, kept with the rollout as JSON.

Without a file the defaults hold: shadow, then one per cent, a tenth, a half and all, each on evidence.
Keys are the fields below; docs/rollout-rules.md says what they mean.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import tomllib

from cloud.errors import RolloutError
from cloud.rollouts import filters
from cloud.rollouts.schedule import Schedule
from cloud.rollouts.strict import expect, plain, read, within
from edge.updates.evidence import ALL, FAILURES, SLICES

_NAME: Final = re.compile(r"[A-Za-z0-9][\w .-]{0,63}")
_MAX_WAVES: Final = 32
_MAX_CELLS: Final = 64
LAST_EDITION: Final = 2  # of the tests


@dataclass(frozen=True, slots=True)
class Shadow:
    """Who tries the release with nobody acting on it, and what that has to show.

    Attributes:
        share: of the vehicles that match, in the shadow before the first wave; at least one vehicle.
        most_vehicles: whatever the share says.
        least_hours: exposed device-hours of all of them before the first wave.
        least_duration_h: how long it lasts. What vehicles count in that time tells them apart: where they are very
            unlike, a day of it lets a small canary show what it could not show otherwise.
        each_hours: that every single vehicle shadows before it may act on the release.
        least_vehicles: that shadowed for `each_hours`; fewer where fewer match.
        least_judged: pairs that differ and were judged by the cloud's bigger model; 0: those that come count.
        most_differ: share of frames on which release and active bundle may tell something else; beyond it the judged
            pairs have to show that the release is not worse, or somebody has to approve the first wave.
    """

    share: float = within(0.02, 0, 1)
    most_vehicles: int = within(500, 1, 1_000_000)
    least_hours: float = within(20.0, 0, 1e6)
    least_duration_h: float = within(0.0, 0, 1e4)
    each_hours: float = within(0.25, 0, 1e4)
    least_vehicles: int = within(3, 1, 1_000_000)
    least_judged: int = within(0, 0, 1_000_000)
    most_differ: float = within(0.5, 0, 1)


@dataclass(frozen=True, slots=True)
class Wave:
    """A step in which more vehicles may act on the release. What it says is in all: earlier waves count.

    Attributes:
        share, count: of the vehicles that match, how many run the release when the wave is through; the smaller counts.
        vehicles: these alone; empty: those that `where` says, chosen by lot.
        where: filter (cloud/rollouts/filters.py); who matches is asked at each decision.
        least_hours: device-hours that vehicles acted on the release in this wave, before it is through.
        least_duration_h, most_duration_h: how long it lasts; beyond the latter the rollout holds.
        needs_approval: somebody has to say that it may begin.
    """

    name: str
    share: float = within(1.0, 0, 1)
    count: int | None = within(None, 1, 10_000_000)
    vehicles: tuple[str, ...] = ()
    where: str = ""
    least_hours: float = within(10.0, 0, 1e7)
    least_duration_h: float = within(0.0, 0, 1e4)
    most_duration_h: float = within(24.0 * 28, 0.01, 1e5)
    needs_approval: bool = False


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast vehicles are told to act on the release, over all waves; it grows while the evidence is clean.

    Attributes:
        start: vehicles in the first step.
        factor: by which their number grows each step.
        step_h: clean hours that a step lasts.
    """

    start: int = within(10, 1, 10_000_000)
    factor: float = within(2.0, 1, 100)
    step_h: float = within(1.0, 0.01, 1e4)


@dataclass(frozen=True, slots=True)
class Retry:
    """What becomes of a vehicle on which the release failed before it acted on it.

    Attributes:
        times: that it is told again.
        after_h: how much later.
    """

    times: int = within(1, 0, 100)
    after_h: float = within(6.0, 0, 1e4)


@dataclass(frozen=True, slots=True)
class Silence:
    """A vehicle that was driving and is not heard any more counts as failed; parked and announced offline do not.

    Attributes:
        after_s: without a word; at least two of the tests' intervals count.
    """

    after_s: float = within(900.0, 10, 1e6)


@dataclass(frozen=True, slots=True)
class Completion:
    """When a wave is through: nobody waits for ever for those that are away.

    Attributes:
        share: of the wave's vehicles that can be reached, settled: confirmed, or failed for good.
        away_after_h: without a word, a vehicle does not count; it stays assigned, and catches up when it is back.
    """

    share: float = within(0.9, 0, 1)
    away_after_h: float = within(24.0, 0.01, 1e5)


@dataclass(frozen=True, slots=True)
class Control:
    """Vehicles held back by lot: what the others are compared with.

    Attributes:
        share: of the vehicles that match.
        joins_at_end: they get the release when all waves are through.
    """

    share: float = within(0.1, 0, 0.9)
    joins_at_end: bool = True


@dataclass(frozen=True, slots=True)
class Metric:
    """Something that is counted and should not happen.

    Attributes:
        counts: names within the vehicle's evidence that are added up; empty: `name` alone.
        weight: its part of alpha.
        promotes: promotion needs evidence that it is not more frequent than the margin says.
    """

    name: str
    counts: tuple[str, ...] = ()
    weight: float = within(1.0, 1e-6, 1e6)
    promotes: bool = False

    @property
    def of(self) -> tuple[str, ...]:
        """Names that are added up."""
        return self.counts or (self.name,)


@dataclass(frozen=True, slots=True)
class Slice:
    """A part of the world; its weight is its part of alpha."""

    name: str
    weight: float = within(1.0, 1e-6, 1e6)


@dataclass(frozen=True, slots=True)
class Tests:
    """What is tested, and how sure one has to be.

    Attributes:
        alpha_stop: chance that a release which is no worse than `effect` is ever stopped, over all metrics and slices.
        alpha_promote: chance that one which is worse than `margin` is ever promoted for its evidence, each time.
        effect: ratio of rates, new to old, up to which nobody stops: the effect that matters begins here.
        margin: ratio of rates that has to be refuted for promotion.
        tolerable_per_hour: a rate so small that it need not be compared: promotes where events are rare.
        most_failed: share of vehicles that may fail while taking the release.
        hold_at: evidence against the release (e-value) at which nothing more begins.
        interval_s: counts are looked at this often.
        cap: counts of one vehicle in one interval beyond this do not count: bursts are one trouble.
        least_vehicles: that contribute to an arm before its comparison counts towards a stop.
        edition: of the tests (cloud/rollouts/editions.py); a rollout keeps the one that it was created under.
    """

    alpha_stop: float = within(1e-3, 1e-12, 0.5)
    alpha_promote: float = within(0.05, 1e-12, 0.5)
    effect: float = within(1.25, 1, 100)
    margin: float = within(1.5, 1, 100)
    tolerable_per_hour: float = within(0.1, 1e-9, 1e6)
    most_failed: float = within(0.05, 1e-6, 0.9)
    hold_at: float = within(20.0, 1, 1e12)
    interval_s: float = within(120.0, 1, 86_400)
    cap: int = within(1, 1, 1_000_000)
    least_vehicles: int = within(1, 1, 1_000_000)
    edition: int = within(LAST_EDITION, 1, LAST_EDITION)
    metrics: tuple[Metric, ...] = (
        Metric("failure", FAILURES, weight=18.0, promotes=True),
        *(Metric(name) for name in FAILURES),
    )
    slices: tuple[Slice, ...] = (Slice(ALL, weight=15.0), *(Slice(name) for name in SLICES))


@dataclass(frozen=True, slots=True)
class Policy:
    """All of it.

    Attributes:
        seed: of the lots; "": the rollout's id.
        where: vehicles that the rollout is about at all, its control included.
        may_skip: gates that may be skipped.
        pace: None: as fast as the waves allow.
    """

    seed: str = ""
    where: str = ""
    may_skip: tuple[str, ...] = ("replay", "parity")
    shadow: Shadow = Shadow()
    waves: tuple[Wave, ...] = (
        Wave("canary", share=0.01, least_hours=20.0, least_duration_h=1.0),
        Wave("tenth", share=0.1, least_hours=100.0, least_duration_h=2.0),
        Wave("half", share=0.5, least_hours=200.0, least_duration_h=2.0),
        Wave("all", share=1.0, least_hours=0.0),
    )
    pace: Pace | None = None
    schedule: Schedule = Schedule()  # noqa: RUF009 - it is frozen
    retry: Retry = Retry()
    silence: Silence = Silence()
    completion: Completion = Completion()
    control: Control = Control()
    tests: Tests = Tests()

    def to_dict(self) -> dict[str, Any]:
        """As JSON; `of_dict` makes it back."""
        return plain(dataclasses.asdict(self))  # type: ignore[no-any-return]

    @staticmethod
    def of_dict(table: Mapping[str, Any]) -> Policy:
        """From TOML or JSON; what it does not say is as by default.

        Raises:
            RolloutError: an unknown key, a wrong type, a value out of its range, or one that makes no sense.
        """
        policy = read(Policy, table, "policy")
        _check(policy)
        return policy

    @staticmethod
    def of_kept(values: Mapping[str, Any]) -> Policy:
        """From what `to_dict` wrote, maybe long ago: then there was one edition of the tests, and no word of it.

        Raises:
            RolloutError: as of `of_dict`.
        """
        tests = values.get("tests")
        return Policy.of_dict({**values, "tests": {"edition": 1, **tests}} if isinstance(tests, Mapping) else values)

    @staticmethod
    def load(path: Path | str) -> Policy:
        """From a TOML file.

        Raises:
            RolloutError: as of `of_dict`, or there is no such file, or it is no TOML.
        """
        path = Path(path)
        try:
            table = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise RolloutError(f"{path}: expected a TOML file, got {error.strerror}") from None
        except (ValueError, RecursionError) as error:
            raise RolloutError(f"{path}: expected TOML, got {error}") from None
        try:
            return Policy.of_dict(table)
        except RolloutError as error:
            raise RolloutError(f"{path}: {error}") from None


def _check(policy: Policy) -> None:
    """What makes no sense though each value by itself does."""
    expect(0 < len(policy.waves) <= _MAX_WAVES, f"waves: expected 1 to {_MAX_WAVES}", len(policy.waves))
    _named("waves", [wave.name for wave in policy.waves])
    for expression in (policy.where, *(wave.where for wave in policy.waves)):
        filters.compiled(expression)
    shares = [wave.share for wave in policy.waves if not wave.vehicles]
    expect(shares == sorted(shares), "waves: expected shares that grow, for earlier waves count", shares)
    for wave in policy.waves:
        expect(wave.share > 0, f"waves {wave.name}: expected a share above 0", wave.share)
        within = wave.least_duration_h <= wave.most_duration_h
        expect(within, f"waves {wave.name}: expected least_duration_h up to most_duration_h", wave.least_duration_h)
    _named("tests.metrics", [metric.name for metric in policy.tests.metrics])
    _named("tests.slices", [one.name for one in policy.tests.slices])
    expect(any(one.name == ALL for one in policy.tests.slices), f"tests.slices: expected one named {ALL}", "none")
    cells = len(policy.tests.metrics) * len(policy.tests.slices)
    expect(0 < cells <= _MAX_CELLS, f"tests: expected 1 to {_MAX_CELLS} pairs of metric and slice", cells)
    promotes = any(metric.promotes for metric in policy.tests.metrics)
    expect(promotes, "tests.metrics: expected one with promotes = true", "none")
    expect(policy.tests.margin > 1, "tests.margin: expected above 1", policy.tests.margin)
    policy.schedule.check()


def _named(where: str, names: list[str]) -> None:
    for name in names:
        expect(bool(_NAME.fullmatch(name)), f"{where}: expected a name of letters, digits, space and . _ -", name)
    expect(len(set(names)) == len(names), f"{where}: expected names that differ", names)
