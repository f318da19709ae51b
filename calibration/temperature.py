"""Temperatures: one number that makes a head as sure as it is right, without touching the order of its answers.

Ref: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017; Platt, "Probabilistic Outputs for Support Vector
Machines", 1999 (the scale and bias of a single label, with its smoothed targets).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]
COLDEST: Final = 0.05
HOTTEST: Final = 20.0
# Probabilities nearer to 0 or 1 than this are taken for it: int8 heads say 0 and 1.
_EDGE: Final = 1e-6
_GOLDEN: Final = 0.5 * (5.0**0.5 - 1.0)
_STEPS: Final = 60
_NEWTON_STEPS: Final = 50


def logits(probabilities: F64) -> F64:
    """log p / (1 - p)."""
    p = np.clip(probabilities, _EDGE, 1.0 - _EDGE)
    return np.asarray(np.log(p) - np.log1p(-p), np.float64)


def sigmoid(values: F64) -> F64:
    """1 / (1 + exp(-v)), of any value."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * values)), np.float64)


def softmax(values: F64) -> F64:
    """Along the last axis."""
    powers = np.exp(values - values.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True), np.float64)


def log_probabilities(probabilities: F64) -> F64:
    """log p: logits of a softmax, up to a constant a sample."""
    return np.asarray(np.log(np.clip(probabilities, 1e-12, 1.0)), np.float64)


def of_labels(scores: F64, truth: NDArray[np.bool_]) -> float:
    """The temperature of independent labels with the least negative log-likelihood.

    Args:
        scores, truth: (n,) logits and whether the label was there.
    """
    signed = np.where(truth, scores, -scores)
    return _coldest_loss(lambda scale: float(np.logaddexp(0.0, -signed * scale).mean()))


def of_classes(scores: F64, truth: NDArray[np.int64]) -> float:
    """The same for exclusive labels.

    Args:
        scores: (n, labels) log-probabilities.
        truth: (n,) label numbers.
    """
    own = scores[np.arange(len(truth)), truth]

    def loss(scale: float) -> float:
        scaled = scores * scale
        top = scaled.max(axis=1)
        return float((top + np.log(np.exp(scaled - top[:, None]).sum(axis=1)) - own * scale).mean())

    return _coldest_loss(loss)


def of_label(scores: F64, truth: NDArray[np.bool_]) -> tuple[float, float] | None:
    """Temperature and bias of one label: sigmoid(score / temperature + bias); None where no positive scale fits.

    Args:
        scores, truth: (n,) as in of_labels, with both answers among them.
    """
    positive = int(truth.sum())
    target = np.where(truth, (positive + 1.0) / (positive + 2.0), 1.0 / (len(truth) - positive + 2.0))
    fitted = np.array([1.0, 0.0])
    design = np.stack([scores, np.ones_like(scores)], axis=1)
    loss = _cross_entropy(design @ fitted, target)
    for _ in range(_NEWTON_STEPS):
        p = sigmoid(design @ fitted)
        gradient = design.T @ (p - target)
        hessian = (design * (p * (1.0 - p))[:, None]).T @ design + 1e-9 * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        size = 1.0
        while size > 1e-6 and _cross_entropy(design @ (fitted - size * step), target) > loss:
            size *= 0.5
        fitted = fitted - size * step
        before, loss = loss, _cross_entropy(design @ fitted, target)
        if before - loss < 1e-10 * len(scores):
            break
    scale, bias = fitted.tolist()
    return (1.0 / scale, bias) if 1.0 / HOTTEST <= scale <= 1.0 / COLDEST else None


def _cross_entropy(scores: F64, target: F64) -> float:
    return float((np.logaddexp(0.0, scores) - target * scores).sum())


def _coldest_loss(loss: Callable[[float], float]) -> float:
    """1 / scale of the least loss, which is convex in the scale, by golden section over its logarithm."""
    low, high = -np.log(HOTTEST), -np.log(COLDEST)
    for _ in range(_STEPS):
        left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        if loss(float(np.exp(left))) <= loss(float(np.exp(right))):
            high = right
        else:
            low = left
    return float(np.exp(-0.5 * (low + high)))
