"""What a rollout may do, and what it has to prove: written by people in TOML, kept with the rollout as JSON.

Without a file the defaults hold: shadow, then one per cent, a tenth, a half and all, each on evidence.
Keys are the fields below; docs/rollout-rules.md says what they mean.
"""

from __future__ import annotations

import dataclasses
import datetime
import math
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import tomllib

from cloud.errors import RolloutError
from cloud.rollouts import filters
from edge.updates.evidence import ALL, FAILURES, SLICES

_T = TypeVar("_T")
_DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_NAME: Final = re.compile(r"[A-Za-z0-9][\w .-]{0,63}")
_CLOCK: Final = re.compile(r"([01]\d|2[0-3]):([0-5]\d)|24:00")
_OFFSET: Final = re.compile(r"[+-](0\d|1[0-4]):([0-5]\d)")
_MAX_WAVES: Final = 32
_MAX_NAMED: Final = 100_000
_MAX_CELLS: Final = 64
LAST_EDITION: Final = 2  # of the tests


def _within(default: Any, least: float, most: float) -> Any:
    """A number's default and its range, both ends included."""
    return field(default=default, metadata={"range": (least, most)})


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

    share: float = _within(0.02, 0, 1)
    most_vehicles: int = _within(500, 1, 1_000_000)
    least_hours: float = _within(20.0, 0, 1e6)
    least_duration_h: float = _within(0.0, 0, 1e4)
    each_hours: float = _within(0.25, 0, 1e4)
    least_vehicles: int = _within(3, 1, 1_000_000)
    least_judged: int = _within(0, 0, 1_000_000)
    most_differ: float = _within(0.5, 0, 1)


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
    share: float = _within(1.0, 0, 1)
    count: int | None = _within(None, 1, 10_000_000)
    vehicles: tuple[str, ...] = ()
    where: str = ""
    least_hours: float = _within(10.0, 0, 1e7)
    least_duration_h: float = _within(0.0, 0, 1e4)
    most_duration_h: float = _within(24.0 * 28, 0.01, 1e5)
    needs_approval: bool = False


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast vehicles are told to act on the release, over all waves; it grows while the evidence is clean.

    Attributes:
        start: vehicles in the first step.
        factor: by which their number grows each step.
        step_h: clean hours that a step lasts.
    """

    start: int = _within(10, 1, 10_000_000)
    factor: float = _within(2.0, 1, 100)
    step_h: float = _within(1.0, 0.01, 1e4)


@dataclass(frozen=True, slots=True)
class Window:
    """When vehicles may be told to act on a release, local time.

    Attributes:
        days: mon .. sun.
        begin, end: HH:MM, the end excluded; an end before the begin is on the next day.
    """

    days: tuple[str, ...] = _DAYS
    begin: str = "00:00"
    end: str = "24:00"


@dataclass(frozen=True, slots=True)
class Schedule:
    """When vehicles may be told to act on a release. Stops know no schedule.

    Attributes:
        offset: of local time from UTC.
        windows: any of them; none: always.
        blackouts: local dates (YYYY-MM-DD) on which nothing begins.
    """

    offset: str = "+00:00"
    windows: tuple[Window, ...] = ()
    blackouts: tuple[str, ...] = ()

    def is_open(self, now_s: float) -> bool:
        """Whether something may begin now."""
        sign = -1 if self.offset[0] == "-" else 1
        hours, minutes = self.offset[1:].split(":")
        local_s = now_s + sign * (int(hours) * 3_600 + int(minutes) * 60)
        day, second = divmod(math.floor(local_s), 86_400)
        date = (datetime.date(1970, 1, 1) + datetime.timedelta(days=day)).isoformat()
        if date in self.blackouts:
            return False
        weekday = (day + 3) % 7  # 1970 began on a Thursday
        return not self.windows or any(_holds(one, weekday, second) for one in self.windows)


@dataclass(frozen=True, slots=True)
class Retry:
    """What becomes of a vehicle on which the release failed before it acted on it.

    Attributes:
        times: that it is told again.
        after_h: how much later.
    """

    times: int = _within(1, 0, 100)
    after_h: float = _within(6.0, 0, 1e4)


@dataclass(frozen=True, slots=True)
class Silence:
    """A vehicle that was driving and is not heard any more counts as failed; parked and announced offline do not.

    Attributes:
        after_s: without a word; at least two of the tests' intervals count.
    """

    after_s: float = _within(900.0, 10, 1e6)


@dataclass(frozen=True, slots=True)
class Completion:
    """When a wave is through: nobody waits for ever for those that are away.

    Attributes:
        share: of the wave's vehicles that can be reached, settled: confirmed, or failed for good.
        away_after_h: without a word, a vehicle does not count; it stays assigned, and catches up when it is back.
    """

    share: float = _within(0.9, 0, 1)
    away_after_h: float = _within(24.0, 0.01, 1e5)


@dataclass(frozen=True, slots=True)
class Control:
    """Vehicles held back by lot: what the others are compared with.

    Attributes:
        share: of the vehicles that match.
        joins_at_end: they get the release when all waves are through.
    """

    share: float = _within(0.1, 0, 0.9)
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
    weight: float = _within(1.0, 1e-6, 1e6)
    promotes: bool = False

    @property
    def of(self) -> tuple[str, ...]:
        """Names that are added up."""
        return self.counts or (self.name,)


@dataclass(frozen=True, slots=True)
class Slice:
    """A part of the world; its weight is its part of alpha."""

    name: str
    weight: float = _within(1.0, 1e-6, 1e6)


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

    alpha_stop: float = _within(1e-3, 1e-12, 0.5)
    alpha_promote: float = _within(0.05, 1e-12, 0.5)
    effect: float = _within(1.25, 1, 100)
    margin: float = _within(1.5, 1, 100)
    tolerable_per_hour: float = _within(0.1, 1e-9, 1e6)
    most_failed: float = _within(0.05, 1e-6, 0.9)
    hold_at: float = _within(20.0, 1, 1e12)
    interval_s: float = _within(120.0, 1, 86_400)
    cap: int = _within(1, 1, 1_000_000)
    least_vehicles: int = _within(1, 1, 1_000_000)
    edition: int = _within(LAST_EDITION, 1, LAST_EDITION)
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
    schedule: Schedule = Schedule()
    retry: Retry = Retry()
    silence: Silence = Silence()
    completion: Completion = Completion()
    control: Control = Control()
    tests: Tests = Tests()

    def to_dict(self) -> dict[str, Any]:
        """As JSON; `of_dict` makes it back."""
        return _plain(dataclasses.asdict(self))  # type: ignore[no-any-return]

    @staticmethod
    def of_dict(table: Mapping[str, Any]) -> Policy:
        """From TOML or JSON; what it does not say is as by default.

        Raises:
            RolloutError: an unknown key, a wrong type, a value out of its range, or one that makes no sense.
        """
        policy = _read(Policy, table, "policy")
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
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise RolloutError(f"{path}: expected TOML, got {error}") from None
        try:
            return Policy.of_dict(table)
        except RolloutError as error:
            raise RolloutError(f"{path}: {error}") from None


def _holds(window: Window, weekday: int, second: int) -> bool:
    begin, end = _second(window.begin), _second(window.end)
    today, yesterday = _DAYS[weekday] in window.days, _DAYS[weekday - 1] in window.days
    if begin < end:
        return today and begin <= second < end
    return (today and second >= begin) or (yesterday and second < end)


def _second(clock: str) -> int:
    hours, minutes = clock.split(":")
    return int(hours) * 3_600 + int(minutes) * 60


def _plain(value: Any) -> Any:
    """Tuples as lists, as JSON gives them back."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, (list, tuple)) else value


def _read(kind: type[_T], table: Any, where: str) -> _T:
    if not isinstance(table, Mapping):
        raise RolloutError(f"{where}: expected a table, got {_short(table)}")
    hints = typing.get_type_hints(kind)
    fields = {one.name: one for one in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for key in table:
        if key not in fields:
            raise RolloutError(f"{where}: expected a key of {', '.join(fields)}, got {_short(key)}")
    values = {key: _value(hints[key], value, f"{where}.{key}") for key, value in table.items()}
    for name, one in fields.items():
        if name not in values and one.default is dataclasses.MISSING:
            raise RolloutError(f"{where}: expected {name}, got none")
        if name in values and values[name] is not None and "range" in one.metadata:
            least, most = one.metadata["range"]
            if not least <= values[name] <= most:
                raise RolloutError(f"{where}.{name}: expected {least:g} to {most:g}, got {values[name]:g}")
    return kind(**values)


def _value(kind: Any, value: Any, where: str) -> Any:
    if typing.get_origin(kind) in (types.UnionType, typing.Union):  # X | None
        return None if value is None else _value(typing.get_args(kind)[0], value, where)
    if typing.get_origin(kind) is tuple:
        if not isinstance(value, (list, tuple)) or len(value) > _MAX_NAMED:
            raise RolloutError(f"{where}: expected a list of at most {_MAX_NAMED}, got {_short(value)}")
        return tuple(_value(typing.get_args(kind)[0], one, f"{where}[{n}]") for n, one in enumerate(value))
    if dataclasses.is_dataclass(kind):
        return _read(kind, value, where)  # type: ignore[arg-type]
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind is float and is_number and math.isfinite(value):
        return float(value)
    if (kind is int and is_number and isinstance(value, int)) or (kind in (str, bool) and isinstance(value, kind)):
        return value
    raise RolloutError(f"{where}: expected {kind.__name__}, got {_short(value)}")


def _short(value: Any) -> str:
    return repr(value)[:60]


def _check(policy: Policy) -> None:
    """What makes no sense though each value by itself does."""
    _expect(0 < len(policy.waves) <= _MAX_WAVES, f"waves: expected 1 to {_MAX_WAVES}", len(policy.waves))
    _named("waves", [wave.name for wave in policy.waves])
    for expression in (policy.where, *(wave.where for wave in policy.waves)):
        filters.compiled(expression)
    shares = [wave.share for wave in policy.waves if not wave.vehicles]
    _expect(shares == sorted(shares), "waves: expected shares that grow, for earlier waves count", shares)
    for wave in policy.waves:
        _expect(wave.share > 0, f"waves {wave.name}: expected a share above 0", wave.share)
        within = wave.least_duration_h <= wave.most_duration_h
        _expect(within, f"waves {wave.name}: expected least_duration_h up to most_duration_h", wave.least_duration_h)
    _named("tests.metrics", [metric.name for metric in policy.tests.metrics])
    _named("tests.slices", [one.name for one in policy.tests.slices])
    _expect(any(one.name == ALL for one in policy.tests.slices), f"tests.slices: expected one named {ALL}", "none")
    cells = len(policy.tests.metrics) * len(policy.tests.slices)
    _expect(0 < cells <= _MAX_CELLS, f"tests: expected 1 to {_MAX_CELLS} pairs of metric and slice", cells)
    promotes = any(metric.promotes for metric in policy.tests.metrics)
    _expect(promotes, "tests.metrics: expected one with promotes = true", "none")
    _expect(policy.tests.margin > policy.tests.effect or policy.tests.margin > 1, "tests.margin: expected above 1", 1)
    _expect(bool(_OFFSET.fullmatch(policy.schedule.offset)), "schedule.offset: expected +HH:MM", policy.schedule.offset)
    for window in policy.schedule.windows:
        for clock in (window.begin, window.end):
            _expect(bool(_CLOCK.fullmatch(clock)), "schedule.windows: expected HH:MM", clock)
        _expect(window.begin != window.end, "schedule.windows: expected an end that is not the begin", window.end)
        days = bool(window.days) and set(window.days) <= set(_DAYS)
        _expect(days, f"schedule.windows: expected days of {', '.join(_DAYS)}", window.days)
    for date in policy.schedule.blackouts:
        try:
            datetime.date.fromisoformat(date)
        except ValueError:
            raise RolloutError(f"schedule.blackouts: expected YYYY-MM-DD, got {date[:20]!r}") from None


def _named(where: str, names: list[str]) -> None:
    for name in names:
        _expect(bool(_NAME.fullmatch(name)), f"{where}: expected a name of letters, digits, space and . _ -", name)
    _expect(len(set(names)) == len(names), f"{where}: expected names that differ", names)


def _expect(holds: bool, expected: str, got: object) -> None:
    if not holds:
        raise RolloutError(f"{expected}, got {_short(got)}")
