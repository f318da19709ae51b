"""Retrieval among held-out moments: which of N does a query mean, with equal captions taken out.

A *scene* is a moment with its past: the fused embedding after the world's frames so far (at most 9 s). A *clip* is the
camera alone over the last two seconds. *image*, *audio*, *motion* and *LiDAR* are the encoders' embeddings of a moment.
Moments are drawn so that no two have the same facts, so each query has exactly one right answer.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from export.evaluation import metrics
from export.evaluation.heads import Figures
from export.evaluation.runner import F32

AMONG = 1000
DRAWS = 5
PLACES = (1, 5, 10)
PAIRS = (
    ("text", "scene"), ("scene", "text"), ("text", "clip"), ("clip", "text"), ("text", "image"), ("image", "text"),
    ("audio", "clip"), ("clip", "audio"), ("image", "audio"), ("audio", "image"), ("audio", "text"), ("text", "audio"),
    ("lidar", "image"), ("image", "lidar"), ("motion", "image"), ("lidar", "text"), ("motion", "text"),
    ("scene without camera", "text"), ("text", "scene without camera"), ("text", "scene without audio"),
    ("text", "scene without lidar"), ("text", "scene without motion"),
)  # fmt: skip


def retrieval_figures(embeddings: dict[str, F32], facts: NDArray[np.int16]) -> Figures:
    """R@1, R@5 and R@10 for each pair whose both sides there are, means of five draws.

    Args:
        embeddings: (n, d) of the same moments, by name.
        facts: (n, 13).
    """
    moment = np.unique(facts, axis=0, return_inverse=True)[1].reshape(-1)
    rng = np.random.default_rng(0)
    draws = [distinct_rows(moment, AMONG, rng) for _ in range(DRAWS)]
    pairs = [pair for pair in PAIRS if set(pair) <= set(embeddings)]
    found = {
        f"{a} to {b}": np.mean(
            [metrics.recall_at(embeddings[a][rows], embeddings[b][rows], PLACES) for rows in draws], 0
        )
        for a, b in pairs
    }
    return {
        "among": len(draws[0]),
        "moments": len(facts),
        "distinct_facts": int(moment.max()) + 1,
        "chance": 1.0 / len(draws[0]),
        "pairs": {name: dict(zip(("r1", "r5", "r10"), map(float, values))) for name, values in found.items()},
    }


def distinct_rows(moment: NDArray[np.int64], count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """At most `count` rows, no two of the same moment number."""
    shuffled = rng.permutation(len(moment))
    first = np.unique(moment[shuffled], return_index=True)[1]
    return np.sort(rng.permutation(shuffled[first])[:count])
