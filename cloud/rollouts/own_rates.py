"""What is to be expected of each vehicle, by what it counted before any vehicle acted on the release.

Vehicles have rates of their own, and lots alone even them out only among many. Their past tells them apart: with rates
drawn from a gamma distribution of mean `rate` and variance `spread` x rate^2, a vehicle with n events in h hours is
expected to have (1 + spread n) / (1 + spread rate h) times the fleet's rate (gamma-Poisson shrinkage). Hours times that
are what two arms are compared by. Both arms' past is of the same time and drawn by the same lots, so a wrong spread
costs power, not validity; what is left of vehicles being unlike is measured afterwards, as phi. A past may mislead: a
burst that is over looks like a rate of its own. So the e-value is the average of this and of one by mere hours.

Ref: Robbins, An empirical Bayes approach to statistics, 1956; Deng et al., Improving the sensitivity of online
    controlled experiments by utilizing pre-experiment data (CUPED), WSDM 2013.
"""

from __future__ import annotations

from collections.abc import Mapping

from cloud.rollouts.comparison import Exposure


def expected(past: Mapping[str, tuple[float, float]]) -> dict[str, float]:
    """Each vehicle's rate to that of all; nothing where vehicles do not show to be unlike.

    Args:
        past: vehicle -> events and hours, above 0.
    """
    exposure, n, squares, crossed = Exposure(), 0.0, 0.0, 0.0
    for events, hours in past.values():
        exposure = exposure.grown(0.0, hours)
        n, squares, crossed = n + events, squares + events * events, crossed + events * hours
    if n == 0.0:
        return {}
    rate = n / exposure.hours
    unlike = _spread(rate, n, squares, crossed, exposure)
    if unlike == 0.0:
        return {}
    return {name: (1.0 + unlike * n) / (1.0 + unlike * rate * h) for name, (n, h) in past.items()}


def _spread(rate: float, n: float, squares: float, crossed: float, exposure: Exposure) -> float:
    """Variance of vehicles' own rates to the square of their mean, by moments."""
    around = squares - 2.0 * rate * crossed + rate * rate * exposure.squares
    return max(around - n, 0.0) / (rate * rate * exposure.squares)
