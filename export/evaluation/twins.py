"""Whether another lowering of a bundle says the same as the one that runs here, on the frames of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from export.evaluation.figures import ALL
from export.evaluation.heads import Figures
from export.evaluation.runner import F32, Encoded, Presence, Sessions, encode, fuse
from export.model.labels import MODALITIES
from export.training.dataset import Split

QUANTUM = 127.0  # steps of an int8 output's largest magnitude


def agreement(shipped: Sessions, other: Sessions, split: Split, presence: Presence = ALL) -> Figures:
    """Share of frames (of cells, of boxes) with the same top answer, and of embedding values within one quantum.

    Both run by ONNX Runtime's kernels, which round ties each in their own way.
    """
    own, twin = encode(shipped, split), encode(other, split)
    first, second = (
        fuse(sessions["fuse"], encoded.embeddings, split.per_world, presence)
        for sessions, encoded in ((shipped, own), (other, twin))
    )
    top = {name: _same_top(first[name], second[name]) for name in ("ego_action", "intent")}
    for name in ("scene_tags", "sound_events"):
        top[f"{name} above 0.5"] = float(((first[name] >= 0.5) == (second[name] >= 0.5)).mean())
    return {
        "frames": len(split),
        "top": {**top, "lanes, cells": float((own.lanes == twin.lanes).mean()), **_same_boxes(own, twin)},
        "within_a_quantum": {
            name: _within(own.embeddings[:, i], twin.embeddings[:, i]) for i, name in enumerate(MODALITIES)
        },
    }


def shares(found: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """All of what `agreement` found, by what it is of."""
    within = {f"{name} embedding, within a quantum": share for name, share in found["within_a_quantum"].items()}
    return {**found["top"], **within}


def _same_top(first: F32, second: F32) -> float:
    return float((first.argmax(1) == second.argmax(1)).mean())


def _same_boxes(own: Encoded, twin: Encoded) -> dict[str, float]:
    """Of the objects that are at least even: the share with one of the same class and kind in the same place."""
    same: list[NDArray[np.bool_]] = []
    for mine, theirs in zip(own.objects, twin.objects):
        sure = mine[mine[:, 1] >= 0.5]
        near = np.abs(sure[:, None, 2:6] - theirs[None, :, 2:6]).max(2, initial=0.0) < 0.01
        alike = (sure[:, None, [0, 6]] == theirs[None, :, [0, 6]]).all(2)
        same.append((near & alike).any(1))
    return {"objects, class and kind": float(np.concatenate(same).mean())} if same else {}


def _within(first: F32, second: F32) -> float:
    quantum = np.abs(first).max(1, keepdims=True) / QUANTUM
    return float((np.abs(first - second) <= quantum).mean())
