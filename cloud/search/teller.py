"""Rows that were found, as answers: which scene and moment, how sure, with which labels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cloud.search import confidence, kernel, planner, rank
from cloud.search.gallery import View
from cloud.search.predicate import Predicate, labels_of
from cloud.search.query import Answer

_BACKGROUND_ROWS: Final = 512


@dataclass(frozen=True, slots=True)
class Told:
    """What was found, as people are told it."""

    answers: tuple[Answer, ...]
    path: str
    matching: int | None
    scores: tuple[float, ...]
    note: str
    rows: int


class Teller:
    """Tells answers; for one thread at a time.

    Args:
        weights: of confidence.
    """

    def __init__(self, weights: confidence.Weights) -> None:
        self._weights = weights
        self._background: tuple[tuple[int, int], int, NDArray[np.float32], NDArray[np.float32]] | None = None

    def told(self, view: View, predicate: Predicate, found: planner.Found, note: str) -> Told:
        """What was found.

        Args:
            predicate: by which, perhaps relaxed.
            note: for whoever reads the answers.
        """
        rows = found.rows
        certainties = rank.certainty(view, predicate, rows)
        cosines: NDArray[np.float32] | None = None
        background = (0.0, 1.0)
        if found.vector is not None:
            length = max(float(np.linalg.norm(found.vector)), 1e-9)
            unit = found.vector / length
            cosines = np.empty(len(rows), np.float32)
            kernel.dots(view.vectors, view.scales, rows, unit, cosines)
            count, mean, covariance = self._others(view)
            if count > 1:
                background = (float(mean @ unit), math.sqrt(max(kernel.variance(covariance, unit), 0.0)))
        features = confidence.features(
            None if certainties is None else certainties.astype(np.float64),
            None if cosines is None else cosines.astype(np.float64),
            background,
        )
        is_sure = certainties is None and cosines is None  # filters alone: they hold
        sure = np.ones(len(rows)) if is_sure else self._weights.confidence(features)
        labels = labels_of(predicate)
        chances = [view.probabilities(label, rows) for label in labels]
        vehicles, outboxes = view.values["vehicle"], view.outboxes
        slots = view.row_scene[rows]
        columns = zip(
            zip(*chances) if chances else [()] * len(rows),
            slots.tolist(),
            view.ids[slots].tolist(),
            view.texts["vehicle"][slots].tolist(),
            view.sequences[slots].tolist(),
            view.instants_ns[rows].tolist(),
            scores := found.scores.tolist(),
            sure.tolist(),
            strict=True,
        )
        answers = tuple(
            Answer(
                scene,
                vehicles[vehicle],
                outboxes[slot],
                sequence,
                instant_ns,
                score,
                chance,
                dict(zip(labels, of_labels)),
            )
            for of_labels, slot, scene, vehicle, sequence, instant_ns, score, chance in columns
        )
        return Told(answers, found.path, found.matching, tuple(scores), note, found.exact_rows)

    def _others(self, view: View) -> tuple[int, NDArray[np.float32], NDArray[np.float32]]:
        """How many moments stand for all, their mean and covariance; the same ones until the gallery is much larger."""
        size = view.rows.bit_length()
        if self._background is None or self._background[0] != (view.generation, size):
            rows = np.flatnonzero(view.alive & (view.scales > 0))
            some = np.random.default_rng(0).choice(rows, min(_BACKGROUND_ROWS, len(rows)), replace=False)
            floats = view.floats(some)
            mean = floats.mean(axis=0) if len(floats) else np.zeros(floats.shape[1], np.float32)
            covariance = np.ascontiguousarray((floats - mean).T @ (floats - mean) / max(len(floats), 1), np.float32)
            self._background = ((view.generation, size), len(floats), mean, covariance)
        return self._background[1:]
