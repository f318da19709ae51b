"""All figures of a bundle: heads, domains, missing modalities, retrieval, calibration, parity, speed and size.

Thresholds and confidence are learned on validation worlds; held-out worlds only ever give figures.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from calibration.confidence import Confidence, Kind, fit
from edge.errors import ConfigError
from export.evaluation import heads, metrics
from export.evaluation.heads import Figures, Thresholds
from export.evaluation.retrieval import retrieval_figures
from export.evaluation.runner import F32, Encoded, Presence, Sessions, encode, fuse, latency_ms, open_engines
from export.model.contract import CLIP_STEPS
from export.model.labels import EGO_ACTIONS, MODALITIES, PRESSING_INTENTS, SCENE_TAGS, SOUND_EVENTS
from export.model.tokens import Vocabulary
from export.training.dataset import Split

ALL = (True, True, True, True)
SUBSETS = {
    "all": ALL,
    **{f"without {name}": tuple(i != k for i in range(4)) for k, name in enumerate(MODALITIES)},
    **{f"{name} only": tuple(i == k for i in range(4)) for k, name in enumerate(MODALITIES)},
    "none": (False, False, False, False),
}
BINS = 10  # of a reliability plot


@dataclass(frozen=True, slots=True)
class Measured:
    """What goes into a manifest."""

    figures: Figures
    thresholds: Thresholds
    confidence: dict[str, object]

    def line(self) -> str:
        """The shortest summary."""
        whole = self.figures["int8"]["summary"]
        return "  ".join(f"{name} {value:.3f}" for name, value in whole.items())


def measure(
    lowered: Mapping[str, onnx.ModelProto], graphs: Mapping[str, onnx.ModelProto] | None,
    towers: Mapping[str, onnx.ModelProto] | None, words: Vocabulary | None, validation: Split, held_out: Split,
) -> Measured:  # fmt: skip
    """Held-out figures of the engines as they ship and of their float twins, with one set of thresholds."""
    low = _open(lowered)
    encoded = encode(low, validation)
    fused = fuse(low["fuse"], encoded.embeddings, validation.per_world, ALL)
    thresholds = heads.choose_thresholds(encoded, fused, validation)
    confidence: dict[str, object] = {
        head: _confidence_json(learned) for head, learned in learn_confidence(fused, validation).items()
    }
    twin = _open(graphs) if graphs is not None else None
    figures = evaluate(low, held_out, thresholds, _open(towers) if towers else None, words, twin)
    figures["size"] = {name: len(model.SerializeToString()) for name, model in lowered.items()}
    return Measured(figures, thresholds, confidence)


def evaluate(
    sessions: Sessions, split: Split, thresholds: Thresholds, towers: Sessions | None, words: Vocabulary | None,
    twin: Sessions | None = None, presence: Presence = ALL,
) -> Figures:  # fmt: skip
    """All figures of one set of engines on one split; with their float twin also what that reaches, and how fast.

    Args:
        presence: what was there to be heard and seen; a subset of modalities is a subset of that.
    """
    there = np.empty((len(split), len(MODALITIES)), np.float32)
    there[:] = presence
    whole, encoded, fused = _whole(sessions, split, thresholds, there)
    runs = {
        name: fused if name == "all" else fuse(sessions["fuse"], encoded.embeddings, split.per_world, there * present)
        for name, present in SUBSETS.items()
    }
    fast = fuse(sessions["fuse"], encoded.embeddings, split.per_world, there, repeat=5)
    figures: Figures = {
        "machine": _machine(),
        "frames": len(split),
        "worlds": int(split.world.max()) + 1,
        "int8": whole,
        "domains": domain_figures(encoded, fused, split, thresholds),
        "missing": missing_figures(runs, split),
        "at_20_fps": heads.fused_summary(fast, split),
        "retrieval": _retrieval(encoded, runs, split, towers, words, there),
        "calibration": calibration_figures(fused, split),
        "scores": score_figures(fused, encoded, split, sessions["fuse"], there),
    }
    if twin is None:
        figures["latency_ms"] = {name: {"shipped": latency_ms(session)[0]} for name, session in sessions.items()}
        return figures
    figures["fp32"] = _whole(twin, split, thresholds, there)[0]
    figures["int8_minus_fp32"] = difference(whole, figures["fp32"])
    figures["latency_ms"] = {
        name: dict(zip(("shipped", "fp32"), latency_ms(session, twin[name]))) for name, session in sessions.items()
    }
    return figures


def domain_figures(encoded: Encoded, fused: Mapping[str, F32], split: Split, thresholds: Thresholds) -> Figures:
    """The summary of each domain, and how many frames it has."""
    found: Figures = {}
    for name, rows in heads.domain_rows(split).items():
        if rows.sum() >= 40:
            figures = heads.summary(heads.head_figures(encoded, fused, split, thresholds, rows))
            found[name] = {"frames": int(rows.sum()), **figures}
    return found


def missing_figures(runs: Mapping[str, Mapping[str, F32]], split: Split) -> Figures:
    """The fusion's heads with some modalities only, and how much the mean over heads falls."""
    found: Figures = {name: heads.fused_summary(run, split) for name, run in runs.items()}
    whole = found["all"]["mean"]
    for row in found.values():
        row["fall_percent"] = 100.0 * (1.0 - row["mean"] / whole)
    return found


def learn_confidence(fused: Mapping[str, F32], split: Split) -> dict[str, Confidence]:
    """Confidence of each fused head, by world; empty where there are too few worlds."""
    kinds: dict[str, tuple[tuple[str, ...], Kind, NDArray[np.integer]]] = {
        "scene_tags": (SCENE_TAGS, "multi", split.tags), "sound_events": (SOUND_EVENTS, "multi", split.sounds),
        "ego_action": (EGO_ACTIONS, "single", split.single[:, 0]),
        "intent": (PRESSING_INTENTS, "single", split.single[:, 1]),
    }  # fmt: skip
    found: dict[str, Confidence] = {}
    for head, (names, kind, truth) in kinds.items():
        with suppress(ConfigError):  # a small run has not the worlds for a guarantee
            found[head] = fit(fused[head], truth.astype(np.int64), names=names, kind=kind, units=split.world)
    return found


def _confidence_json(learned: Confidence) -> dict[str, object]:
    return {
        "kind": learned.kind, "temperatures": list(learned.temperatures), "biases": list(learned.biases),
        "alpha": learned.alpha, "set_threshold": learned.set_threshold, "figures": learned.figures,
    }  # fmt: skip


def calibration_figures(fused: Mapping[str, F32], split: Split) -> Figures:
    """Expected calibration error and reliability of what the fusion says, all labels of a head together."""
    pairs: dict[str, tuple[F32, NDArray[Any]]] = {
        "scene_tags": (fused["scene_tags"].ravel(), split.tags.ravel()),
        "sound_events": (fused["sound_events"].ravel(), split.sounds.ravel()),
        "ego_action": _top(fused["ego_action"], split.single[:, 0]),
        "intent": _top(fused["intent"], split.single[:, 1]),
    }
    return {name: _reliability(p.astype(np.float64), hit.astype(np.float64)) for name, (p, hit) in pairs.items()}


def score_figures(
    fused: Mapping[str, F32], encoded: Encoded, split: Split, session: ort.InferenceSession, there: F32
) -> Figures:
    """Quantiles of each score, and what the scores tell apart; one world has no foreign sound."""
    scores = fused["scores"]
    figures: Figures = {
        name: [float(value) for value in np.quantile(scores[:, i], (0.05, 0.5, 0.95, 0.99))]
        for i, name in enumerate(("uncertainty", "disagreement", "novelty"))
    }
    wrong = 0.5 * (
        np.abs(fused["scene_tags"] - split.tags).mean(1) + np.abs(fused["sound_events"] - split.sounds).mean(1)
    )
    figures["uncertainty_auroc_of_error"] = metrics.auroc(scores[:, 0], (wrong > np.quantile(wrong, 0.9)).astype(int))
    figures["disagreement_auroc_of_foreign_sound"] = float("nan")
    if len(split) > split.per_world:
        foreign, present = encoded.embeddings.copy(), there.copy()
        for of_sound in (foreign[:, 1], present[:, 1]):
            of_sound[:] = np.roll(of_sound, split.per_world, axis=0)
        mixed = fuse(session, foreign, split.per_world, present)
        both = np.concatenate([mixed["scores"][:, 1], scores[:, 1]])
        figures["disagreement_auroc_of_foreign_sound"] = metrics.auroc(both, np.repeat([1, 0], len(both) // 2))
    figures["quantiles"] = [0.05, 0.5, 0.95, 0.99]
    return figures


def difference(low: Figures, full: Figures) -> Figures:
    """int8 minus float in points (hundredths), for each number of the summary and each class."""
    found: Figures = {
        "summary": {name: 100.0 * (low["summary"][name] - full["summary"][name]) for name in low["summary"]},
        "classes": {},
    }
    for head, key in (("scene_tags", "ap"), ("sound_events", "ap"), ("objects", "ap50")):
        for name, row in low[head].items():
            found["classes"][f"{head} {name} {key}"] = 100.0 * (row[key] - full[head][name][key])
    for name, value in low["lanes"].items():
        found["classes"][f"lanes {name} iou"] = 100.0 * (value - full["lanes"][name])
    return found


def _whole(
    sessions: Sessions, split: Split, thresholds: Thresholds, there: F32
) -> tuple[Figures, Encoded, dict[str, F32]]:
    encoded = encode(sessions, split)
    fused = fuse(sessions["fuse"], encoded.embeddings, split.per_world, there)
    figures = heads.head_figures(encoded, fused, split, thresholds)
    return {**figures, "summary": heads.summary(figures)}, encoded, fused


def _retrieval(
    encoded: Encoded, runs: Mapping[str, Mapping[str, F32]], split: Split, towers: Sessions | None,
    words: Vocabulary | None, there: F32,
) -> Figures:  # fmt: skip
    names = {"camera": "image", "audio": "audio", "motion": "motion", "lidar": "lidar"}
    found = {names[name]: encoded.embeddings[:, i] for i, name in enumerate(MODALITIES) if there[:, i].any()}
    found["scene"] = runs["all"]["embedding"]
    found |= {f"scene {name}": run["embedding"] for name, run in runs.items() if name.startswith("without")}
    if towers is None or words is None:
        return retrieval_figures(found, split.facts)
    found["clip"] = clip_embeddings(towers["video"], encoded.embeddings[:, 0], split.per_world)
    found["text"] = text_embeddings(towers["text"], split.captions["en"], words)
    figures = retrieval_figures(found, split.facts)
    for language in ("de", "es", "fr"):
        told = {"text": text_embeddings(towers["text"], split.captions[language], words), "scene": found["scene"]}
        figures["pairs"][f"text ({language}) to scene"] = retrieval_figures(told, split.facts)["pairs"]["text to scene"]
    return figures


def text_embeddings(session: ort.InferenceSession, texts: list[str], words: Vocabulary) -> F32:
    """(n, d), each text once."""
    known = {text: session.run(None, {"tokens": words.encode(text)[None]})[0][0] for text in dict.fromkeys(texts)}
    return np.stack([known[text] for text in texts])


def clip_embeddings(session: ort.InferenceSession, camera: F32, per_world: int) -> F32:
    """(n, d): the clip that ends at each frame; what lies before its world is absent."""
    found = []
    for row in range(len(camera)):
        first = max(row - CLIP_STEPS + 1, row // per_world * per_world)
        moments = np.zeros((1, CLIP_STEPS, camera.shape[1]), np.float32)
        moments[0, CLIP_STEPS - (row + 1 - first) :] = camera[first : row + 1]
        found.append(session.run(None, {"moments": moments})[0][0])
    return np.stack(found)


def _top(given: F32, truth: NDArray[np.int16]) -> tuple[F32, NDArray[np.bool_]]:
    return given.max(1), given.argmax(1) == truth


def _reliability(p: NDArray[np.float64], hit: NDArray[np.float64]) -> Figures:
    place = np.minimum((p * BINS).astype(int), BINS - 1)
    bins = [(int((place == i).sum()), float(p[place == i].mean()), float(hit[place == i].mean()))
            for i in range(BINS) if (place == i).any()]  # fmt: skip
    error = sum(count * abs(said - was) for count, said, was in bins) / max(len(p), 1)
    return {"ece": error, "bins": [{"count": c, "said": s, "was": w} for c, s, w in bins]}


def _open(models: Mapping[str, onnx.ModelProto]) -> dict[str, ort.InferenceSession]:
    return open_engines({name: model.SerializeToString(deterministic=True) for name, model in models.items()})


def _machine() -> str:
    """What measured the latencies."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return f"{os.cpu_count()}-core {line.partition(':')[2].strip()}, Python {platform.python_version()}"
    return f"{os.cpu_count()}-core {platform.machine()}, Python {platform.python_version()}"
