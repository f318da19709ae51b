"""How right the analyst is on held-out worlds, beside the vehicle's own fusion, which knows the past alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.evaluation import metrics
from export.evaluation.retrieval import AMONG, DRAWS, distinct_rows
from export.model.analyst_outputs import GROUPS, YES_OR_NO, fact_slices
from export.model.labels import FACT_SOUNDS, FACTS

F32 = NDArray[np.float32]
BINS = 15


def fact_figures(said: F32, facts: NDArray[np.integer], besides: NDArray[np.integer]) -> dict[str, dict[str, float]]:
    """By fact: how often the likeliest value is right, beside that of always saying the commonest; ECE of every value.

    Args:
        said: (n, OUTPUTS) probabilities. facts: (n, 13). besides: (n, 5), the rest of YES_OR_NO.
    """
    found: dict[str, dict[str, float]] = {}
    for i, (name, part) in enumerate(zip(FACTS, fact_slices())):
        truth = facts[:, i]
        one_hot = truth[:, None] == np.arange(said[:, part].shape[1])
        found[name] = {
            "accuracy": float((said[:, part].argmax(1) == truth).mean()),
            "commonest": float(np.bincount(truth).max() / len(truth)),
            "ece": calibration_error(said[:, part].ravel(), one_hot.ravel()),
        }
    rest = np.concatenate([facts[:, len(FACTS) :], besides], 1)
    for i, name in enumerate(GROUPS[len(FACTS) :]):
        p, truth = said[:, said.shape[1] - len(YES_OR_NO) + i], rest[:, i]
        found[name] = {
            "accuracy": float(((p >= 0.5) == truth).mean()),
            "commonest": float(max(truth.mean(), 1.0 - truth.mean())),
            "ap": metrics.average_precision(p, truth),
            "ece": calibration_error(p, truth > 0),
        }
    return found


def calibration_error(p: NDArray[np.floating], holds: NDArray[np.bool_]) -> float:
    """Expected calibration error over BINS equal bins of the probability. Ref: Guo et al., arXiv 1706.04599."""
    which = np.minimum((p * BINS).astype(int), BINS - 1)
    counts, sums, hits = (np.bincount(which, w, BINS) for w in (None, p, holds.astype(float)))
    return float(np.abs(sums - hits).sum() / max(counts.sum(), 1))


def recall_figures(embedding: F32, anchor: F32, facts: NDArray[np.integer]) -> dict[str, float]:
    """R@1 and R@10 of a moment's facts among moments of different facts, both ways; means of five draws."""
    moment = np.unique(facts, axis=0, return_inverse=True)[1].reshape(-1)
    rng = np.random.default_rng(0)
    found: list[list[float]] = []
    for _ in range(DRAWS):
        rows = distinct_rows(moment, AMONG, rng)
        there = metrics.recall_at(anchor[rows], embedding[rows], (1, 10))
        found.append(there + metrics.recall_at(embedding[rows], anchor[rows], (1, 10)))
    names = ("facts to scene R@1", "facts to scene R@10", "scene to facts R@1", "scene to facts R@10")
    return dict(zip(names, np.mean(found, 0).tolist()))


def all_right(figures: dict[str, dict[str, float]]) -> dict[str, Any]:
    """The mean over facts and sounds of a caption."""
    names = [*FACTS, *(f"sound {name}" for name in FACT_SOUNDS)]
    return {key: float(np.mean([figures[name][key] for name in names])) for key in ("accuracy", "ece")}
