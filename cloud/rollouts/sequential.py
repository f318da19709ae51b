"""Tests that may be looked at after every count: logarithms of likelihood ratios, and mixtures of them.

An e-process starts at 1 and, where the null hypothesis holds, is not expected to grow, whenever one stops to look; the
chance that it ever reaches 1/alpha is at most alpha (Ville 1939). Likelihood ratios against the null's edge are such
processes, and so are averages of them over alternatives, metrics and slices, whatever depends on what.

Three of them are here:
 - two arms (`two_arm`): events are Poisson, arms have exposures; given that an event happened in one of the arms, the
   odds that it is the treated one's are ratio x exposures. Null: ratio <= slack (to stop) or >= margin (to promote).
   Pairs that differ are the same with equal exposures.
 - one arm (`one_arm`): Poisson events against a stated rate, for what is too rare to be compared.
 - share (`share`): of vehicles that fail, against a stated share; each vehicle counts once.

Real counts are not Poisson: vehicles have rates of their own, and faults come in bursts. Then the score of the two arms
varies phi times as much as Poisson counts would, and the logarithm is divided by phi ("tempered"). With a rate of its
own for each vehicle, phi grows with the exposure, as V -> 1 + s2 V; the tempered score is then a Brownian motion in the
clock V/phi(V), so that the tempered ratio is a martingale again (for many vehicles, with s2 known).

Every function takes numbers, or numpy arrays of many worlds with `log` or `exp` of numpy.

Ref: Lindon, Malek, Anytime-valid inference for multinomial count data, arXiv 2011.03567; Lindon, Sanden, Shirikian,
    Rapid regression detection in software deployments through sequential testing (Netflix), arXiv 2205.14762;
    Waudby-Smith, Ramdas, Estimating means of bounded random variables by betting, arXiv 2010.09686; Howard, Ramdas,
    McAuliffe, Sekhon, Time-uniform, nonparametric, nonasymptotic confidence sequences, arXiv 1810.08240.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

# Alternatives that a mixture bets on, as multiples of the null's edge; as many to catch small and large effects soon.
WORSE: Final = (1.3, 1.6, 2.4, 4.0, 10.0)
# To refute a margin: ratios to the edge that are as good as equal, or better.
FINE: Final = (0.8, 2 / 3, 0.5)
# To refute a rate.
RARE: Final = (0.3, 0.1, 0.01)
# To refute a share of failing vehicles.
FAILING: Final = (2.5, 6.0, 15.0)
_MOST_SHARE: Final = 0.98
_MOST_LOG: Final = 600.0  # e^600 is a number yet


def two_arm(
    treated: Any, treated_h: Any, control: Any, control_h: Any, ratio: float, times: float,
    log: Callable[[Any], Any] = math.log,
) -> Any:  # fmt: skip
    """What an interval adds to the logarithm: alternative ratio x times against ratio.

    Args:
        treated, control: events of each arm in the interval.
        treated_h, control_h: exposures, above 0, in the same unit.
    """
    share = (ratio * treated_h + control_h) / (ratio * times * treated_h + control_h)
    return treated * log(times) + (treated + control) * log(share)


def one_arm(events: Any, hours: Any, rate: float, times: float, log: Callable[[Any], Any] = math.log) -> Any:
    """What an interval adds to the logarithm: alternative rate x times against rate."""
    return events * log(times) - (times - 1.0) * rate * hours


def share(failed: int, tried: int, null: float, times: float) -> float:
    """What vehicles add to the logarithm: alternative share null x times (at most 0.98) against null."""
    alternative = max(null, min(null * times, _MOST_SHARE))
    return failed * math.log(alternative / null) + (tried - failed) * math.log((1 - alternative) / (1 - null))


def mixed(
    logs: Sequence[Any], phi: Any = 1.0, exp: Callable[[Any], Any] = math.exp, least: Any = min,
    weights: Sequence[float] = (),
) -> Any:  # fmt: skip
    """The e-value of a mixture of alternatives, tempered by how unlike Poisson counts are.

    Args:
        weights: of the alternatives; none: each weighs the same.
    """
    values = [exp(least(one / phi, _MOST_LOG)) for one in logs]
    if not weights:
        return sum(values) / len(values)
    return sum(weight * value for weight, value in zip(weights, values, strict=True)) / sum(weights)
