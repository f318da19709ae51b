"""How right a bundle's decisions are: each head by what acts on it (thresholds), and by its probabilities."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cloud.gates.outcome import LABELS, Outcome, Truth
from cloud.gates.policy import Policy
from cloud.gates.settings import confidences
from cloud.gates.statistics import F64, Figure, added, less, mean_f1, mean_iou, negative_ece, ratio
from edge.bundle import Bundle
from export.evaluation import metrics
from export.model.labels import OBJECTS, SURFACES

MULTI: Final = ("scene_tags", "sound_events")
SINGLE: Final = ("ego_action", "intent")
_LEAST_IOU: Final = 0.5
_LEAST_POSITIVES: Final = 10  # frames; what holds in fewer of a slice is not judged there
_LEAST_NLL: Final = 0.1  # nats; below it the effect that matters does not shrink further
_CLIP: Final = 1e-4
_BINS: Final = 15
_COLUMN_OF_KIND: Final = {"sign": 6, "pedestrian": 7, "vehicle": 8}
_MOST_ONSET_S: Final = 1.0

Rows = NDArray[np.bool_]


class Merit:
    """Per frame what each figure adds up, worked out once for a bundle.

    Args:
        bundle: whose thresholds and confidence count.
    """

    def __init__(self, bundle: Bundle, outcome: Outcome, truth: Truth) -> None:
        self._truth = truth
        self._counts: dict[str, F64] = {}
        self._nll: dict[str, F64] = {}
        self._bins: dict[str, F64] = {}
        self._true = {
            "scene_tags": truth.targets.tags > 0,
            "sound_events": truth.targets.sounds > 0,
            "ego_action": truth.targets.single[:, :1] == np.arange(len(LABELS["ego_action"])),
            "intent": truth.targets.single[:, 1:2] == np.arange(len(LABELS["intent"])),
        }
        calibrated = confidences(bundle)
        self._said = outcome.heads
        for head, true in self._true.items():
            said = outcome.heads[head]
            known = np.nan_to_num(said, nan=0.0)
            if head in MULTI:
                limits = np.asarray(bundle.thresholds.get(head, [0.5] * len(LABELS[head])))[: true.shape[1]]
                given = known >= limits
            else:
                given = known.argmax(1)[:, None] == np.arange(true.shape[1])
            self._counts[head] = np.stack([given & true, given, true], 2).reshape(len(true), -1).astype(np.float64)
            sure = known
            if head in calibrated and said.shape[1] == len(calibrated[head].names):
                sure = calibrated[head].apply(np.clip(known, 1e-7, 1 - 1e-7))
            self._nll[head] = _nll(sure, true, head in SINGLE)
            self._bins[head] = _binned(sure, true, head in SINGLE)
        self._objects, self._kinds = _boxes(outcome, truth)
        self._lanes = _lanes(outcome.lanes, truth.surface)
        self._onsets = _onsets(outcome.heads["sound_onsets"], truth.targets.onsets)

    def figures(self, rows: Rows, policy: Policy, current: Merit | None = None) -> list[Figure]:
        """All figures of some of the frames.

        Args:
            rows: (n,) the slice.
            current: whose figures set the effects that are relative; None: these own ones.
        """
        unit = self._truth.unit[rows]
        is_all = bool(rows.all())
        effect = policy.effect if is_all else policy.effect_slice
        found = []
        for head in MULTI:
            columns = self._judged(head, rows, policy)
            if columns:
                sums = added(self._counts[head][rows][:, columns], unit)
                found.append(Figure(f"F1 of {head}", sums, mean_f1, effect))
        for head in SINGLE:
            counts = self._counts[head][rows]
            right = np.stack([counts[:, 0::3].sum(1), np.ones(len(counts))], 1)
            found.append(Figure(f"accuracy of {head}", added(right, unit), ratio, effect))
        for i in self._often(self._objects[:, 2::3] > 0, rows, policy):
            name, sums = OBJECTS[i], added(self._objects[rows][:, 3 * i : 3 * i + 3], unit)
            found.append(Figure(f"F1 of {name} boxes", sums, mean_f1, effect))
            found.append(
                Figure(f"kinds of {name}s", added(self._kinds[rows][:, 2 * i : 2 * i + 2], unit), ratio, 2 * effect)
            )
        found.append(Figure("IoU of lanes", added(self._lanes[rows], unit), mean_iou, effect))
        if self._often(self._onsets[:, 1:] > 0, rows, policy):
            found.append(Figure("onsets of sounds, s", added(self._onsets[rows], unit), less, effect))
        for head in self._true:
            least = _LEAST_NLL
            usual = float((current or self)._nll[head][rows].mean())
            spread = policy.effect_nll * max(usual, least) * (1.0 if is_all else 2.0)
            ones = np.stack([self._nll[head][rows], np.ones(int(rows.sum()))], 1)
            found.append(Figure(f"log loss of {head}", added(ones, unit), less, spread))
            found.append(
                Figure(f"calibration of {head}", added(self._bins[head][rows], unit), negative_ece, 2 * effect)
            )
        return found

    def labels(self, policy: Policy) -> list[Figure]:
        """F1 of each label, and recall of each class, over all frames."""
        found = []
        unit = self._truth.unit
        everything = np.ones(len(unit), bool)
        for head, names in LABELS.items():
            columns = self._judged(head, everything, policy)
            for i, name in enumerate(names):
                if 3 * i in columns:
                    sums = added(self._counts[head][:, 3 * i : 3 * i + 3], unit)
                    found.append(Figure(f"F1 of {head} {name}", sums, mean_f1, policy.effect_label))
        for i in self._often(self._lanes[:, 2::3] > 0, everything, policy):
            sums = added(self._lanes[:, 3 * i : 3 * i + 3], unit)
            found.append(Figure(f"IoU of {SURFACES[i]}", sums, mean_iou, policy.effect_label))
        return found

    def precision(self) -> dict[str, float]:
        """Average precision of each label, as `roadfuse evaluate` gives it; for the record."""
        return {
            f"{head} {name}": metrics.average_precision(
                np.nan_to_num(self._said[head][:, i]), self._true[head][:, i].astype(int)
            )
            for head in MULTI
            for i, name in enumerate(LABELS[head])
            if self._true[head][:, i].sum() >= _LEAST_POSITIVES
        }

    def _judged(self, head: str, rows: Rows, policy: Policy) -> list[int]:
        """Columns of counts of the labels that come often enough."""
        return [3 * i + k for i in self._often(self._true[head], rows, policy) for k in range(3)]

    def _often(self, holds: Rows, rows: Rows, policy: Policy) -> list[int]:
        """Which of some labels hold in enough frames of a slice, and in enough segments.

        The figure of a single segment is the same in all draws that have it, and would seem to be sure.

        Args:
            holds: (n, labels) by the truth, so that both bundles are judged by the same ones.
        """
        frames = added(holds[rows].astype(np.float64), self._truth.unit[rows])
        is_often = (frames.sum(0) >= _LEAST_POSITIVES) & ((frames > 0).sum(0) >= policy.least_units)
        found: list[int] = np.flatnonzero(is_often).tolist()
        return found


def _nll(said: F64, true: NDArray[np.bool_], is_single: bool) -> F64:
    p = np.clip(said, _CLIP, 1 - _CLIP)
    if is_single:
        return np.asarray(-np.log(np.where(true, p, 1.0)).sum(1), np.float64)
    return np.asarray(-np.where(true, np.log(p), np.log(1 - p)).mean(1), np.float64)


def _binned(said: F64, true: NDArray[np.bool_], is_single: bool) -> F64:
    """(n, BINS * 3): of the likeliest class, or of every label."""
    if is_single:
        top = said.argmax(1)[:, None]
        said, true = np.take_along_axis(said, top, 1), np.take_along_axis(true, top, 1)
    which = np.minimum((np.clip(said, 0, 1) * _BINS).astype(int), _BINS - 1)
    bins = np.zeros((len(said), _BINS, 3))
    frame = np.repeat(np.arange(len(said)), said.shape[1])
    np.add.at(bins, (frame, which.ravel()), np.stack([np.ones(said.size), said.ravel(), true.ravel()], 1))
    return bins.reshape(len(said), -1)


def _boxes(outcome: Outcome, truth: Truth) -> tuple[F64, F64]:
    """(n, classes * 3) both, said, true; (n, classes * 2) finer kinds that are right, and all."""
    counts = np.zeros((len(outcome.objects), len(OBJECTS), 3))
    kinds = np.zeros((len(outcome.objects), len(OBJECTS), 2))
    for row, (found, boxes) in enumerate(zip(outcome.objects, truth.targets.boxes)):
        for kind, name in enumerate(OBJECTS):
            scores, right, count = metrics.box_matches([found], [boxes], kind, _LEAST_IOU)
            counts[row, kind] = right.sum(), len(scores), count
            given, true = metrics.matched_kinds([found], [boxes], kind, _COLUMN_OF_KIND[name], 0.0)
            kinds[row, kind] = (given == true).sum(), len(true)
    return counts.reshape(len(counts), -1), kinds.reshape(len(kinds), -1)


def _lanes(said: NDArray[np.uint8], true: NDArray[np.uint8]) -> F64:
    parts: list[Any] = []
    for i in range(len(SURFACES)):
        given, there = said == i, true == i
        parts += [(given & there).sum((1, 2)), given.sum((1, 2)), there.sum((1, 2))]
    return np.stack(parts, 1).astype(np.float64)


def _onsets(said: F64, true: NDArray[np.floating]) -> F64:
    """Of events that began within the last second: the error, and how many."""
    fresh = (true >= 0) & (true < _MOST_ONSET_S)
    error = np.where(fresh, np.abs(np.nan_to_num(said, nan=_MOST_ONSET_S) - true), 0.0)
    return np.stack([error.sum(1), fresh.sum(1)], 1).astype(np.float64)
