"""The figures of each head on labelled frames, each beside what chance would reach where that is not plain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.evaluation import metrics
from export.evaluation.runner import F32, Encoded
from export.model.labels import (
    EGO_ACTIONS,
    INTENTS,
    OBJECTS,
    PRESSING_INTENTS,
    SCENE_TAGS,
    SIGN_KINDS,
    SOUND_EVENTS,
    SURFACES,
    VEHICLE_KINDS,
)  # fmt: skip
from export.training.dataset import Split

Figures = dict[str, Any]
Rows = NDArray[np.bool_]
FUSED = ("scene_tags", "sound_events", "ego_action", "intent")  # heads that need no camera
DOMAINS = {
    "day": ("light", "day"), "dusk": ("light", "dusk"), "night": ("light", "night"), "rain": ("weather", "rain"),
    "fog": ("weather", "fog"), "snow": ("weather", "snow"), "tunnel": ("place", "tunnel"),
}  # fmt: skip
LEAST_IOU = 0.5
LEAST_POSITIVES = 5  # labels rarer than this in a domain have no figure there


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Probabilities from which a label or box counts."""

    tags: list[float]
    sounds: list[float]
    objects: float

    def as_json(self) -> dict[str, object]:
        """As a manifest has them."""
        return {"scene_tags": self.tags, "sound_events": self.sounds, "objects": self.objects}

    @staticmethod
    def from_json(given: Mapping[str, Any]) -> Thresholds:
        """Of a manifest; one half where it says nothing."""
        return Thresholds(
            list(given.get("scene_tags", [0.5] * len(SCENE_TAGS))),
            list(given.get("sound_events", [0.5] * len(SOUND_EVENTS))),
            float(given.get("objects", 0.5)),
        )


def choose_thresholds(encoded: Encoded, fused: Mapping[str, F32], split: Split) -> Thresholds:
    """Best F1, label by label; of boxes over all classes."""
    tags = [metrics.best_threshold(fused["scene_tags"][:, i], split.tags[:, i]) for i in range(len(SCENE_TAGS))]
    sounds = [metrics.best_threshold(fused["sound_events"][:, i], split.sounds[:, i]) for i in range(len(SOUND_EVENTS))]
    parts = [_matches(encoded, split, kind, np.ones(len(split), bool)) for kind in range(len(OBJECTS))]
    scores, right = np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])
    count = sum(part[2] for part in parts)
    steps = np.arange(0.1, 0.9, 0.025)
    values = [2.0 * right[scores >= step].sum() / max((scores >= step).sum() + count, 1) for step in steps]
    return Thresholds(tags, sounds, round(float(steps[int(np.argmax(values))]), 3))


def head_figures(
    encoded: Encoded, fused: Mapping[str, F32], split: Split, thresholds: Thresholds, rows: Rows | None = None
) -> Figures:
    """Every head in detail, on some of the rows."""
    rows = np.ones(len(split), bool) if rows is None else rows
    return {
        "scene_tags": _labels(SCENE_TAGS, fused["scene_tags"][rows], split.tags[rows], thresholds.tags),
        "sound_events": _labels(SOUND_EVENTS, fused["sound_events"][rows], split.sounds[rows], thresholds.sounds),
        "sound_onsets": _onsets(encoded.onsets[rows], split.onsets[rows]),
        "ego_action": _single(EGO_ACTIONS, fused["ego_action"][rows], split.single[rows, 0]),
        "intent": _single(PRESSING_INTENTS, fused["intent"][rows], split.single[rows, 1]),
        "objects": _objects(encoded, split, thresholds.objects, rows),
        "signs": _finer(encoded, split, "sign", 6, SIGN_KINDS, thresholds.objects, rows),
        "pedestrian_intents": _finer(encoded, split, "pedestrian", 7, INTENTS, thresholds.objects, rows),
        "vehicle_kinds": _finer(encoded, split, "vehicle", 8, VEHICLE_KINDS, thresholds.objects, rows),
        "lanes": dict(zip(SURFACES, metrics.class_iou(encoded.lanes[rows], split.surface[rows], len(SURFACES)))),
    }


def summary(figures: Figures) -> dict[str, float]:
    """One number for each head: what the tables by domain and by missing modality show."""
    return {
        "scene_tags mean AP": _mean(figures["scene_tags"], "ap"),
        "sound_events mean AP": _mean(figures["sound_events"], "ap"),
        "ego_action accuracy": figures["ego_action"]["accuracy"],
        "intent macro F1": figures["intent"]["macro_f1"],
        "objects mean AP50": _mean(figures["objects"], "ap50"),
        "signs accuracy": figures["signs"]["accuracy"],
        "pedestrian_intents macro F1": figures["pedestrian_intents"]["macro_f1"],
        "vehicle_kinds accuracy": figures["vehicle_kinds"]["accuracy"],
        "lanes mean IoU": float(np.nanmean(list(figures["lanes"].values()))),
        "sound_onsets error s": figures["sound_onsets"]["mean_error_s"],
    }


def fused_summary(fused: Mapping[str, F32], split: Split, rows: Rows | None = None) -> dict[str, float]:
    """The heads of the fusion alone, one number each, then their mean."""
    rows = np.ones(len(split), bool) if rows is None else rows
    found = {
        "scene_tags mean AP": _mean_ap(fused["scene_tags"][rows], split.tags[rows]),
        "sound_events mean AP": _mean_ap(fused["sound_events"][rows], split.sounds[rows]),
        "ego_action accuracy": float((fused["ego_action"][rows].argmax(1) == split.single[rows, 0]).mean()),
        "intent macro F1": metrics.macro_f1(
            fused["intent"][rows].argmax(1), split.single[rows, 1], len(PRESSING_INTENTS)
        ),
    }
    return found | {"mean": float(np.mean(list(found.values())))}


def domain_rows(split: Split) -> dict[str, Rows]:
    """Frames of each domain; light and weather of those outside tunnels."""
    column = {"place": 0, "light": 1, "weather": 2}
    outside = split.domains[:, 0] != "tunnel"
    return {
        name: (split.domains[:, column[kind]] == value) & (outside | (kind == "place"))
        for name, (kind, value) in DOMAINS.items()
    }


def _labels(names: tuple[str, ...], given: F32, truth: NDArray[np.uint8], thresholds: list[float]) -> Figures:
    """AUROC, AP and F1 beside the base rate (which is the AP of chance), label by label."""
    return {
        name: {
            "base_rate": float(truth[:, i].mean()),
            "auroc": metrics.auroc(given[:, i], truth[:, i]),
            "ap": metrics.average_precision(given[:, i], truth[:, i]),
            "f1": metrics.f1(given[:, i], truth[:, i], thresholds[i]),
        }
        for i, name in enumerate(names)
        if truth[:, i].sum() >= LEAST_POSITIVES
    }


def _mean_ap(given: F32, truth: NDArray[np.uint8]) -> float:
    values = [
        metrics.average_precision(given[:, i], truth[:, i])
        for i in range(truth.shape[1])
        if truth[:, i].sum() >= LEAST_POSITIVES
    ]
    return float(np.mean(values)) if values else float("nan")


def _onsets(given: F32, seconds: F32) -> Figures:
    """Of events that began within the last second: mean error, and that of always saying their mean."""
    fresh = (seconds >= 0) & (seconds < 1.0)
    error = np.abs(given - seconds)[fresh]
    middle = np.abs(seconds[fresh] - seconds[fresh].mean()) if fresh.any() else np.zeros(0)
    return {
        "events": int(fresh.sum()),
        "mean_error_s": float(error.mean()) if fresh.any() else float("nan"),
        "within_0.15_s": float((error <= 0.15).mean()) if fresh.any() else float("nan"),
        "chance_error_s": float(middle.mean()) if fresh.any() else float("nan"),
    }


def _single(names: tuple[str, ...], given: F32, truth: NDArray[np.int16]) -> Figures:
    """Accuracy, macro F1, and by class recall and share; the commonest class's share is what chance would reach."""
    said = given.argmax(1)
    counts = np.bincount(truth, minlength=len(names))
    return {
        "accuracy": float((said == truth).mean()) if len(truth) else float("nan"),
        "macro_f1": metrics.macro_f1(said, truth, len(names)),
        "chance_accuracy": float(counts.max() / max(len(truth), 1)),
        "classes": {
            name: {
                "share": float(counts[i] / max(len(truth), 1)),
                "recall": float((said[truth == i] == i).mean()) if counts[i] else float("nan"),
            }
            for i, name in enumerate(names)
        },
    }


def _objects(encoded: Encoded, split: Split, threshold: float, rows: Rows) -> Figures:
    """AP at IoU 0.5 by class, precision and recall at the threshold, and the AP of another frame's true boxes."""
    figures: Figures = {}
    elsewhere = _as_detections(np.roll(split.boxes, len(split) // 2, 0))
    for kind, name in enumerate(OBJECTS):
        scores, right, count = _matches(encoded, split, kind, rows)
        kept = scores >= threshold
        figures[name] = {
            "ap50": metrics.box_average_precision(scores, right, count),
            "objects": count,
            "precision": float(right[kept].mean()) if kept.any() else 0.0,
            "recall": float(right[kept].sum()) / max(count, 1),
        }
        if rows.all():
            figures[name]["chance_ap50"] = metrics.box_average_precision(
                *metrics.box_matches(elsewhere, list(split.boxes), kind, LEAST_IOU)
            )
    return figures


def _matches(encoded: Encoded, split: Split, kind: int, rows: Rows) -> tuple[metrics.F64, NDArray[np.int64], int]:
    return metrics.box_matches(list(encoded.objects[rows]), list(split.boxes[rows]), kind, LEAST_IOU)


def _finer(
    encoded: Encoded, split: Split, name: str, column: int, kinds: tuple[str, ...], threshold: float, rows: Rows
) -> Figures:
    """What is said of the objects of a class that were found."""
    given, truth = metrics.matched_kinds(
        list(encoded.objects[rows]), list(split.boxes[rows]), OBJECTS.index(name), column, threshold
    )
    counts = np.bincount(truth, minlength=len(kinds))
    return {
        "found": len(truth),
        "accuracy": float((given == truth).mean()) if len(truth) else float("nan"),
        "macro_f1": metrics.macro_f1(given, truth, len(kinds)),
        "chance_accuracy": float(counts.max() / max(len(truth), 1)),
    }


def _as_detections(boxes: F32) -> list[F32]:
    """True boxes of other frames as if detected with equal probability."""
    return list(np.concatenate([boxes[..., :1], np.ones_like(boxes[..., :1]), boxes[..., 1:5]], 2))


def _mean(rows: Mapping[str, Mapping[str, float]], key: str) -> float:
    return float(np.nanmean([row[key] for row in rows.values()])) if rows else float("nan")
