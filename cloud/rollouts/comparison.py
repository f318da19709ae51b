"""One comparison of the release with the old bundles, by metric and slice, and how unlike Poisson its counts are."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Final

from cloud.rollouts import sequential
from cloud.rollouts.policy import Tests

HOUR_S: Final = 3_600.0
# Of what is estimated from few vehicles: so many standard errors more.
_SAFETY: Final = 2.0
# Of what few vehicles count, so much over the square of their number may be one vehicle's own.
_OWN: Final = 8.0
_OWN_PAIRS: Final = 4.0


@dataclass(frozen=True, slots=True)
class Exposure:
    """Whose time an arm is, within a slice.

    Attributes:
        vehicles: that contributed.
        hours: of all.
        squares: sum of the squares of each vehicle's hours.
    """

    vehicles: int = 0
    hours: float = 0.0
    squares: float = 0.0

    def grown(self, before_h: float, more_h: float) -> Exposure:
        """With more hours of a vehicle that had some before."""
        after_h = before_h + more_h
        return Exposure(
            self.vehicles + (before_h == 0.0 < after_h),
            self.hours + more_h,
            self.squares + after_h * after_h - before_h * before_h,
        )


@dataclass(frozen=True, slots=True)
class Comparison:
    """What the tests know of one metric within one slice.

    Attributes:
        treated, control: events (of each vehicle and interval at most `cap`).
        stop: logarithms, one for each alternative, that the release is worse than `effect`.
        fine: that it is better than `margin`.
        rare: that its rate is below the tolerable one.
        treated_squares, treated_crossed, control_squares, control_crossed: sums over vehicles: n^2 and n h, by arm; of
            pairs n is the treated count, h the count of both.
    """

    treated: int = 0
    control: int = 0
    stop: tuple[float, ...] = (0.0,) * len(sequential.WORSE)
    fine: tuple[float, ...] = (0.0,) * len(sequential.FINE)
    rare: tuple[float, ...] = (0.0,) * len(sequential.RARE)
    treated_squares: float = 0.0
    treated_crossed: float = 0.0
    control_squares: float = 0.0
    control_crossed: float = 0.0

    def compared(self, treated: int, treated_h: float, control: int, control_h: float, tests: Tests) -> Comparison:
        """With an interval's counts of vehicles that can be compared: one stratum of both arms."""
        if treated + control == 0 or treated_h <= 0.0 or control_h <= 0.0:
            return self  # nothing is learned where nothing happened, or where there is nothing to compare with
        counts = (treated, treated_h, control, control_h)
        worse, fine = sequential.WORSE, sequential.FINE
        return replace(
            self,
            stop=tuple(x + sequential.two_arm(*counts, tests.effect, k) for x, k in zip(self.stop, worse)),
            fine=tuple(x + sequential.two_arm(*counts, tests.margin, k) for x, k in zip(self.fine, fine)),
        )

    def counted(self, treated: int, treated_h: float, control: int, tests: Tests) -> Comparison:
        """With an interval's counts of all vehicles of both arms."""
        rate = tests.tolerable_per_hour
        rare = tuple(x + sequential.one_arm(treated, treated_h, rate, k) for x, k in zip(self.rare, sequential.RARE))
        return replace(self, treated=self.treated + treated, control=self.control + control, rare=rare)

    def against(self, phi: float, weights: tuple[float, ...] = ()) -> float:
        """E-value that the release is worse than it may be; weights are those of sequential.WORSE."""
        return float(sequential.mixed(self.stop, phi, weights=weights))

    def fine_for_it(self, phi: float) -> float:
        """E-value that its rate is below margin x the old one."""
        return float(sequential.mixed(self.fine, phi))

    def rare_for_it(self, phi: float) -> float:
        """E-value that its rate is below the tolerable one."""
        return float(sequential.mixed(self.rare, phi))


@dataclass(frozen=True, slots=True)
class Spread:
    """How unlike an arm's vehicles are around what was expected of each.

    Attributes:
        n, squares, crossed: sums over vehicles: n, n^2 and n h, with h the hours times what was expected.
        exposure: the same hours.
        hours_squares: sum over vehicles of the squares of their hours as they were.
    """

    n: int = 0
    squares: float = 0.0
    crossed: float = 0.0
    exposure: Exposure = Exposure()
    hours_squares: float = 0.0

    def grown(self, was: float, events: int, before_h: float, hours: float, expected: float) -> Spread:
        """With more of a vehicle that had some before.

        Args:
            before_h, hours: times `expected`.
        """
        now, after_h = was + events, before_h + hours
        return Spread(
            self.n + events,
            self.squares + now * now - was * was,
            self.crossed + now * after_h - was * before_h,
            self.exposure.grown(before_h, hours),
            self.hours_squares + (after_h * after_h - before_h * before_h) / (expected * expected),
        )

    @property
    def sums(self) -> tuple[float, float, float]:
        """As `phi_of_arms` takes them."""
        return self.n, self.squares, self.crossed


@dataclass(frozen=True, slots=True)
class Taking:
    """How vehicles fare while they take the release: each counts once a mode.

    Attributes:
        tried, failed: vehicles.
        logs: that a larger share fails than may, one for each alternative.
    """

    tried: int = 0
    failed: int = 0
    logs: tuple[float, ...] = (0.0,) * len(sequential.FAILING)

    def grown(self, tried: int, failed: int, null: float) -> Taking:
        """With more vehicles; `null` is the share that may fail now."""
        logs = tuple(x + sequential.share(failed, tried, null, k) for x, k in zip(self.logs, sequential.FAILING))
        return Taking(self.tried + tried, self.failed + failed, logs)

    def against(self) -> float:
        """E-value that a larger share fails than may."""
        return float(sequential.mixed(self.logs))


def phi_of_arms(
    treated: tuple[Any, Any, Any], of_treated: Any, control: tuple[Any, Any, Any], of_control: Any, most: Any = max,
    squares: tuple[Any, Any] | None = None,
) -> Any:  # fmt: skip
    """By how much the score of two arms varies more than Poisson counts would; at least 1.

    Args:
        treated, control: (n, sum of n^2, sum of n h) over the arm's vehicles.
        of_treated, of_control: Exposure of each arm; or anything with its attributes.
        most: numpy's maximum where the numbers are arrays.
        squares: of the vehicles' hours as they were, of each arm, where those of the exposures are times what was
            expected. Expectations may be wrong, and then lots may have given one arm those that were expected to have
            few events: vehicles are as unlike by hour, not by what was expected in it.
    """
    one, two = phi_of_arm(*treated, of_treated, most), phi_of_arm(*control, of_control, most)
    # What the old arm shows of unlike vehicles holds for the treated ones too, at their smaller exposure.
    of_squares, of_squares_old = squares or (of_treated.squares, of_control.squares)
    typical, typical_old = (
        of_squares / _above0(of_treated.hours, most),
        of_squares_old / _above0(of_control.hours, most),
    )
    ratio = typical / _above0(typical_old, most)
    one = most(one, 1.0 + (two - 1.0) * (ratio if squares else ratio - most(ratio - 1.0, 0.0)))
    part = of_treated.hours / _above0(of_treated.hours + of_control.hours, most)
    return (1.0 - part) * one + part * two


def phi_of_arm(n: Any, squares: Any, crossed: Any, exposure: Any, most: Any = max) -> Any:
    """Variance to mean of an arm's vehicles around their common rate, with a margin for few vehicles; at least 1."""
    rate = n / _above0(exposure.hours, most)
    around = squares - 2.0 * rate * crossed + rate * rate * exposure.squares
    free = most(exposure.vehicles - 1.0, 1.0)
    phi = around / _above0(n, most) * exposure.vehicles / free
    # One vehicle says nothing of how unlike others are, and few say little: then all may be one vehicle's own.
    own = _OWN * squares / _above0(n, most) / most(exposure.vehicles, 1.0) ** 2
    return most(1.0 + (phi - 1.0) * (1.0 + _SAFETY * (2.0 / free) ** 0.5), 1.0) + own


def phi_of_pairs(treated: int, both: int, squares: float, crossed: float, both_squares: float, vehicles: int) -> float:
    """The same of pairs within vehicles: how much more the treated part differs between vehicles than by chance."""
    if both == 0:
        return 1.0
    # Of how much one side outweighs the other on each vehicle: many pairs of one vehicle may be one trouble of its own.
    own = _OWN_PAIRS * (4.0 * squares - 4.0 * crossed + both_squares) / (both * max(vehicles, 1) ** 2)
    if treated == 0 or treated == both or vehicles < 2:
        return 1.0 + own
    part = treated / both
    around = squares - 2.0 * part * crossed + part * part * both_squares
    phi = around / (both * part * (1.0 - part)) * vehicles / (vehicles - 1.0)
    return max(1.0 + (phi - 1.0) * (1.0 + _SAFETY * math.sqrt(2.0 / (vehicles - 1.0))), 1.0) + own


def _above0(value: Any, most: Any) -> Any:
    return most(value, 1e-12)
