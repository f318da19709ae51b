"""The figures of a bundle on worlds it never saw: every head beside its chance level, and every modality missing once.

Thresholds are chosen on validation worlds; held-out worlds only ever give figures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from export import metrics
from export.dataset import Split
from export.labels import OBJECTS, SCENE_TAGS, SOUND_EVENTS
from export.runner import Encoded, Fused, encode, fuse

ALL = (True, True, True)
SUBSETS = {
    "camera+audio+motion": ALL,
    "camera+audio": (True, True, False),
    "camera+motion": (True, False, True),
    "audio+motion": (False, True, True),
    "camera": (True, False, False),
    "audio": (False, True, False),
    "motion": (False, False, True),
    "none": (False, False, False),
}
LEAST_IOU = 0.5
CANDIDATES = 100  # of a retrieval question
Figures = dict[str, object]


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Probabilities from which a label or box counts."""

    tags: list[float]
    sounds: list[float]
    objects: float

    def as_json(self) -> dict[str, object]:
        return {"scene_tags": self.tags, "sound_events": self.sounds, "objects": self.objects}


def choose_thresholds(sessions: Mapping[str, ort.InferenceSession], split: Split) -> Thresholds:
    """Best F1 on validation worlds, label by label."""
    encoded = encode(sessions, split)
    fused = fuse(sessions["fuse"], encoded.embeddings, split.per_world, ALL)
    tags = [metrics.best_threshold(fused.tags[:, i], split.tags[:, i]) for i in range(len(SCENE_TAGS))]
    sounds = [metrics.best_threshold(fused.sounds[:, i], split.sounds[:, i]) for i in range(len(SOUND_EVENTS))]
    return Thresholds(tags, sounds, _object_threshold(encoded, split))


def evaluate(sessions: Mapping[str, ort.InferenceSession], split: Split, thresholds: Thresholds) -> Figures:
    """All figures of one set of engines on one split."""
    encoded = encode(sessions, split)
    fused = {
        name: fuse(sessions["fuse"], encoded.embeddings, split.per_world, present) for name, present in SUBSETS.items()
    }
    whole = fused["camera+audio+motion"]
    fast = fuse(sessions["fuse"], encoded.embeddings, split.per_world, ALL, repeat=5)
    return {
        "frames": len(split),
        "worlds": int(split.world.max()) + 1,
        "scene_tags": label_figures(SCENE_TAGS, whole.tags, split.tags, thresholds.tags),
        "sound_events": label_figures(SOUND_EVENTS, whole.sounds, split.sounds, thresholds.sounds),
        "objects": object_figures(encoded, split, thresholds.objects),
        "retrieval": retrieval_figures(encoded.embeddings, split),
        "missing": {name: _subset_figures(found, split) for name, found in fused.items()},
        "at_20_fps": _subset_figures(fast, split),
        "scores": _score_figures(whole, encoded, split, sessions["fuse"]),
    }


def label_figures(
    names: tuple[str, ...], given: NDArray[np.float32], truth: NDArray[np.uint8], thresholds: list[float]
) -> Figures:
    """AUROC, AP and F1 beside the base rate (which is the AP of chance), label by label."""
    return {
        name: {
            "base_rate": float(truth[:, i].mean()),
            "auroc": metrics.auroc(given[:, i], truth[:, i]),
            "ap": metrics.average_precision(given[:, i], truth[:, i]),
            "f1": metrics.f1(given[:, i], truth[:, i], thresholds[i]),
        }
        for i, name in enumerate(names)
    }


def object_figures(encoded: Encoded, split: Split, threshold: float) -> Figures:
    """AP at IoU 0.5 and 0.3 by class, and the AP of boxes that belong to the frame half the split away."""
    figures: Figures = {}
    moved = np.roll(np.arange(len(split)), len(split) // 2)
    elsewhere = _as_detections(split.boxes[moved])
    for kind, name in enumerate(OBJECTS):
        entry = {}
        for least in (0.5, 0.3):
            entry[f"ap{round(least * 100)}"] = metrics.box_average_precision(
                *metrics.box_matches(list(encoded.objects), list(split.boxes), kind, least)
            )
        chance = metrics.box_matches(elsewhere, list(split.boxes), kind, LEAST_IOU)
        scores, right, count = metrics.box_matches(list(encoded.objects), list(split.boxes), kind, LEAST_IOU)
        kept = scores >= threshold
        figures[name] = entry | {
            "chance_ap50": metrics.box_average_precision(*chance),
            "objects": count,
            "precision": float(right[kept].mean()) if kept.any() else 0.0,
            "recall": float(right[kept].sum()) / max(count, 1),
        }
    return figures


def retrieval_figures(embeddings: NDArray[np.float32], split: Split) -> Figures:
    """R@1 among moments of different worlds: which of N sounds belongs to this picture, and so on."""
    count = min(CANDIDATES, int(split.world.max()) + 1)
    rounds = []
    rng = np.random.default_rng(0)
    for _ in range(20):
        worlds = rng.choice(int(split.world.max()) + 1, count, replace=False)
        rows = worlds * split.per_world + rng.integers(0, split.per_world, count)
        one = embeddings[rows]
        rounds.append([metrics.recall_at_1(one[:, a], one[:, b]) for a, b in ((0, 1), (1, 0), (0, 2), (1, 2))])
    names = ("camera_to_audio", "audio_to_camera", "camera_to_motion", "audio_to_motion")
    means = [float(value) for value in np.mean(rounds, 0)]
    return {"among": count, "chance": 1.0 / count, **dict(zip(names, means))}


def difference(whole: Figures, half: Figures) -> Figures:
    """int8 minus float: mean AP of each head."""
    return {head: _mean_ap(whole[head]) - _mean_ap(half[head]) for head in ("scene_tags", "sound_events", "objects")}


def _subset_figures(found: Fused, split: Split) -> Figures:
    return {
        "scene_tags_ap": float(
            np.nanmean([metrics.average_precision(*pair) for pair in zip(found.tags.T, split.tags.T)])
        ),
        "sound_events_ap": float(
            np.nanmean([metrics.average_precision(*pair) for pair in zip(found.sounds.T, split.sounds.T)])
        ),
    }


def _score_figures(whole: Fused, encoded: Encoded, split: Split, session: ort.InferenceSession) -> Figures:
    """Quantiles of each score, and of the disagreement when the sound belongs to another world."""
    foreign = encoded.embeddings.copy()
    foreign[:, 1] = np.roll(foreign[:, 1], split.per_world, axis=0)
    mixed = fuse(session, foreign, split.per_world, ALL)
    figures: Figures = {
        name: [float(value) for value in np.quantile(whole.scores[:, i], (0.05, 0.5, 0.95, 0.99))]
        for i, name in enumerate(("uncertainty", "disagreement", "novelty"))
    }
    wrong = 0.5 * (np.abs(whole.tags - split.tags).mean(1) + np.abs(whole.sounds - split.sounds).mean(1))
    figures["uncertainty_auroc_of_error"] = metrics.auroc(
        whole.scores[:, 0], (wrong > np.quantile(wrong, 0.9)).astype(int)
    )
    both = np.concatenate([mixed.scores[:, 1], whole.scores[:, 1]])
    figures["disagreement_auroc_of_foreign_sound"] = metrics.auroc(both, np.repeat([1, 0], len(both) // 2))
    figures["quantiles"] = [0.05, 0.5, 0.95, 0.99]
    return figures


def _object_threshold(encoded: Encoded, split: Split) -> float:
    """The probability with the best F1 over all classes."""
    parts = [
        metrics.box_matches(list(encoded.objects), list(split.boxes), kind, LEAST_IOU) for kind in range(len(OBJECTS))
    ]
    scores, right = np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])
    count = sum(part[2] for part in parts)
    steps = np.arange(0.1, 0.9, 0.025)
    values = [2.0 * right[scores >= step].sum() / max((scores >= step).sum() + count, 1) for step in steps]
    return round(float(steps[int(np.argmax(values))]), 3)


def _as_detections(boxes: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """True boxes of other frames as if detected with equal probability."""
    ones = np.ones_like(boxes[..., :1])
    return list(np.concatenate([boxes[..., :1], ones, boxes[..., 1:5]], 2))


def _mean_ap(head: object) -> float:
    assert isinstance(head, dict)
    values = [entry.get("ap", entry.get("ap50")) for entry in head.values()]
    return float(np.nanmean(values))
