"""Figures of merit, each with what chance would reach."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]


def auroc(score: NDArray[np.floating], truth: NDArray[np.integer]) -> float:
    """Area under the ROC curve, ties counted half; NaN with one class only. Chance 0.5."""
    positive = truth > 0
    count = int(positive.sum())
    if count in (0, len(truth)):
        return float("nan")
    _, place, sizes = np.unique(score, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(sizes) - 0.5 * (sizes - 1))[place]
    return float((ranks[positive].sum() - count * (count + 1) / 2) / (count * (len(truth) - count)))


def average_precision(score: NDArray[np.floating], truth: NDArray[np.integer]) -> float:
    """Mean precision at each positive, ranked by score. Chance: the base rate."""
    if not (truth > 0).any():
        return float("nan")
    hits = (truth > 0)[np.argsort(-score, kind="stable")]
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    return float(precision[hits].mean())


def f1(score: NDArray[np.floating], truth: NDArray[np.integer], threshold: float) -> float:
    """F1 of score >= threshold."""
    given, right = score >= threshold, truth > 0
    both = float((given & right).sum())
    return 2.0 * both / max(float(given.sum() + right.sum()), 1.0)


def best_threshold(score: NDArray[np.floating], truth: NDArray[np.integer]) -> float:
    """The threshold among 0.05 .. 0.95 with the best F1; the middle one of equals."""
    steps = np.arange(0.05, 0.96, 0.025)
    values = np.array([f1(score, truth, float(step)) for step in steps])
    best = np.flatnonzero(values >= values.max() - 1e-9)
    return round(float(steps[best[len(best) // 2]]), 3)


def iou(boxes: F64, other: F64) -> F64:
    """(n, m) intersection over union of boxes as left, top, width, height."""
    left = np.maximum(boxes[:, None, 0], other[None, :, 0])
    top = np.maximum(boxes[:, None, 1], other[None, :, 1])
    right = np.minimum((boxes[:, 0] + boxes[:, 2])[:, None], (other[:, 0] + other[:, 2])[None])
    bottom = np.minimum((boxes[:, 1] + boxes[:, 3])[:, None], (other[:, 1] + other[:, 3])[None])
    overlap = np.clip(right - left, 0, None) * np.clip(bottom - top, 0, None)
    areas = (boxes[:, 2] * boxes[:, 3])[:, None] + (other[:, 2] * other[:, 3])[None]
    return np.asarray(overlap / np.maximum(areas - overlap, 1e-12), np.float64)


def box_matches(
    found: Sequence[NDArray[np.floating]], truth: Sequence[NDArray[np.floating]], kind: int, least_iou: float
) -> tuple[F64, NDArray[np.int64], int]:
    """Detections of one class matched greedily, best first.

    Args:
        found: per frame (16, 6): class, probability, left, top, width, height.
        truth: per frame (m, 6): class, left, top, width, height, 1 to count or 0 to ignore.

    Returns:
        probability of each detection, 1 right or 0 wrong (those on ignored objects left out), count of true objects.
    """
    scores: list[float] = []
    right: list[int] = []
    count = 0
    for rows, boxes in zip(found, truth):
        own = boxes[boxes[:, 0] == kind]
        count += int((own[:, 5] > 0).sum())
        given = rows[rows[:, 0] == kind]
        given = given[np.argsort(-given[:, 1], kind="stable")]
        overlaps = iou(given[:, 2:6].astype(np.float64), own[:, 1:5].astype(np.float64))
        taken = np.zeros(len(own), bool)
        for i, row in enumerate(given):
            best = int(np.argmax(np.where(taken, -1.0, overlaps[i]))) if len(own) else -1
            hit = best >= 0 and not taken[best] and overlaps[i, best] >= least_iou
            if hit:
                taken[best] = True
                if own[best, 5] <= 0:
                    continue
            scores.append(float(row[1]))
            right.append(int(hit))
    return np.asarray(scores, np.float64), np.asarray(right, np.int64), count


def box_average_precision(scores: F64, right: NDArray[np.int64], count: int) -> float:
    """Area under the precision envelope over recall (all points); NaN without objects."""
    if count == 0:
        return float("nan")
    if len(scores) == 0:
        return 0.0
    hits = right[np.argsort(-scores, kind="stable")]
    recall = np.cumsum(hits) / count
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float((np.diff(recall, prepend=0.0) * envelope).sum())


def recall_at(query: NDArray[np.floating], target: NDArray[np.floating], places: tuple[int, ...]) -> list[float]:
    """Share of rows of `query` whose own row of `target` (cosine) is among the nearest 1, 5, ... Chance: k / rows.

    Of rows that are equally near half come before the own one.
    """
    scores = query @ target.T
    own = np.diagonal(scores)[:, None]
    rank = (scores > own).sum(1) + 0.5 * ((scores == own).sum(1) - 1)
    return [float((rank < place).mean()) for place in places]


def macro_f1(given: NDArray[np.integer], truth: NDArray[np.integer], classes: int) -> float:
    """Mean F1 over the classes that occur."""
    values = []
    for i in range(classes):
        both = float(((given == i) & (truth == i)).sum())
        if (truth == i).any():
            values.append(2.0 * both / max(float((given == i).sum() + (truth == i).sum()), 1.0))
    return float(np.mean(values)) if values else float("nan")


def class_iou(given: NDArray[np.integer], truth: NDArray[np.integer], classes: int) -> list[float]:
    """Intersection over union of each class, NaN where it never comes."""
    found = []
    for i in range(classes):
        union = float(((given == i) | (truth == i)).sum())
        found.append(float(((given == i) & (truth == i)).sum()) / union if union else float("nan"))
    return found


def matched_kinds(
    found: Sequence[NDArray[np.floating]], truth: Sequence[NDArray[np.floating]], kind: int, column: int, least: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Finer kinds of the objects of a class that were found: given and true.

    Args:
        found: per frame (n, 7): class, probability, left, top, width, height, finer kind.
        truth: per frame (m, 9) as targets.Targets; `column` of it holds the finer kind.
        least: probability from which a detection counts.
    """
    given: list[int] = []
    right: list[int] = []
    for rows, boxes in zip(found, truth):
        own = boxes[(boxes[:, 0] == kind) & (boxes[:, 5] > 0) & (boxes[:, column] >= 0)]
        rows = rows[(rows[:, 0] == kind) & (rows[:, 1] >= least)]
        if not len(own) or not len(rows):
            continue
        overlaps = iou(own[:, 1:5].astype(np.float64), rows[:, 2:6].astype(np.float64))
        best = overlaps.argmax(1)
        for i, j in enumerate(best):
            if overlaps[i, j] >= 0.3:
                given.append(int(rows[j, 6]))
                right.append(int(own[i, column]))
    return np.asarray(given, np.int64), np.asarray(right, np.int64)
