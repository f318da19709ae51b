"""How likely an answer is what was asked for: a logistic function of what search knows of it.

    certainty   log-probability of the labels asked for, joint; 0 where none is
    odds        its logit; 0 where none is
    cosine      with what was to be alike; 0 where nothing was
    lead        how far the cosine stands out from other moments, in their standard deviations; 0 where nothing was
    labels, likes   whether there are any: each kind of query has a level of its own

A score such as s1 (1 + s1 - s2) is no probability. The weights are fitted on worlds that nothing was trained on
(`fit`) and lie in export/reference/retrieval_confidence.json; without that file those below stand in, which say what
the labels say and nothing of a likeness before it stands out by three deviations.
Ref: Platt, Probabilistic outputs for support vector machines, 1999.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cloud.errors import ModelError

FEATURES: Final = ("certainty", "odds", "cosine", "lead", "labels", "likes")
FITTED: Final = Path(__file__).parents[2] / "export" / "reference" / "retrieval_confidence.json"
_LIMIT: Final = 12.0  # of logits
_RIDGE: Final = 1e-3


@dataclass(frozen=True, slots=True)
class Weights:
    """Of FEATURES, and the level."""

    values: tuple[float, ...]
    bias: float

    def confidence(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n,) chance for (n, len(FEATURES)) features."""
        logits = features @ np.asarray(self.values) + self.bias
        chance: NDArray[np.float64] = 1.0 / (1.0 + np.exp(-_within(logits)))
        return chance


DEFAULT: Final = Weights((0.0, 1.0, 0.0, 1.0, 0.0, -3.0), 0.0)


def features(
    certainties: NDArray[np.float64] | None, cosines: NDArray[np.float64] | None, background: tuple[float, float]
) -> NDArray[np.float64]:
    """(n, len(FEATURES)) of n answers to one query.

    Args:
        certainties: (n,) joint log-probability of the labels asked for; None where none is.
        cosines: (n,) with what was to be alike; None where nothing was.
        background: mean and standard deviation of the cosine of moments at large.
    """
    count = len(certainties) if certainties is not None else len(cosines) if cosines is not None else 0
    found = np.zeros((count, len(FEATURES)))
    if certainties is not None:
        joint = np.minimum(np.maximum(np.exp(np.minimum(certainties, 0.0)), 1e-5), 1.0 - 1e-5)
        found[:, 0], found[:, 1], found[:, 4] = np.log(joint), np.log(joint / (1.0 - joint)), 1.0
    if cosines is not None:
        mean, deviation = background
        found[:, 2], found[:, 5] = cosines, 1.0
        found[:, 3] = _within((cosines - mean) / max(deviation, 1e-6))
    return found


def _within(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of a few values, for which np.clip takes longer to begin than to end."""
    return np.minimum(np.maximum(logits, -_LIMIT), _LIMIT)


def fit(found: NDArray[np.float64], is_right: NDArray[np.bool_], steps: int = 50) -> Weights:
    """Weights that make the answers most likely, by Newton's method with a slight ridge.

    Args:
        found: (n, len(FEATURES)).
        is_right: (n,) whether each answer was what was asked for.
    """
    inputs = np.column_stack([found, np.ones(len(found))])
    weights = np.zeros(inputs.shape[1])
    for _ in range(steps):
        chance = 1.0 / (1.0 + np.exp(-np.clip(inputs @ weights, -_LIMIT, _LIMIT)))
        gradient = inputs.T @ (chance - is_right) + _RIDGE * weights
        curvature = (inputs * (chance * (1.0 - chance))[:, None]).T @ inputs + _RIDGE * np.eye(len(weights))
        step = np.linalg.solve(curvature, gradient)
        weights -= step
        if float(np.abs(step).max()) < 1e-9:
            break
    return Weights(tuple(map(float, weights[:-1])), float(weights[-1]))


def load(path: Path = FITTED) -> Weights:
    """The fitted weights, or DEFAULT where there is no file.

    Raises:
        ModelError: the file is none of `to_json`'s.
    """
    if not path.exists():
        return DEFAULT
    try:
        said = json.loads(path.read_text())
        weights = Weights(tuple(float(said["weights"][name]) for name in FEATURES), float(said["bias"]))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ModelError(f"{path}: expected weights of {', '.join(FEATURES)} and a bias, got {error}") from None
    if not all(map(math.isfinite, (*weights.values, weights.bias))):
        raise ModelError(f"{path}: expected finite weights, got others")
    return weights


def to_json(weights: Weights, **said: Any) -> str:
    """As the file has it; `said`: how they were fitted and how good they are."""
    named = dict(zip(FEATURES, weights.values, strict=True))
    return json.dumps({"weights": named, "bias": weights.bias, **said}, indent=2, sort_keys=True) + "\n"
