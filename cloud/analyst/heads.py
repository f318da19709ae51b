"""What a bundle's heads say of a frame, as labels (cloud/labels.py) with calibrated probabilities.

A bundle's manifest tells how each head is calibrated (temperatures and biases, learned on validation worlds); the loop
does not use that, and here it is applied. Heads without it, such as boxes and masks, are no labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from calibration.temperature import F64, log_probabilities, logits, sigmoid, softmax
from cloud.labels import of_sound, of_tag
from edge.bundle import Bundle
from edge.decision import Decision

# Heads whose labels are values of one fact, and the value that says nothing.
_FACTS: Final = {"ego_action": ("action", ""), "intent": ("intent", "none")}


class Heads:
    """The heads of one bundle.

    Args:
        bundle: whose decisions are read.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.bundle_id = bundle.id
        self._confidence: dict[str, Any] = {
            head: told for head, told in bundle.confidence.items() if _fits(told, bundle.heads.get(head, ()))
        }

    def labels(self, decision: Decision) -> dict[str, float]:
        """The labels of one decision; one of another bundle is taken at its word."""
        own = decision.bundle_id == self.bundle_id
        found: dict[str, float] = {}
        for head, tags in (("scene_tags", decision.scene_tags), ("sound_events", decision.sound_events)):
            name_of = of_tag if head == "scene_tags" else of_sound
            probabilities = self._calibrated(head, [tag.probability for tag in tags], own)
            found |= {name_of(tag.name): p for tag, p in zip(tags, probabilities)}
        for head, readings in decision.heads:  # what a head of its own says counts more than a tag
            if head in _FACTS:
                fact, nothing = _FACTS[head]
                probabilities = self._calibrated(head, [reading.value for reading in readings], own)
                found |= {f"{fact}:{r.label}": p for r, p in zip(readings, probabilities) if r.label != nothing}
        return found

    def _calibrated(self, head: str, said: Sequence[float], own: bool) -> list[float]:
        told = self._confidence.get(head)
        values = np.clip(np.nan_to_num(np.asarray(said, np.float64)), 0.0, 1.0)
        if told is None or not own or len(told["temperatures"]) != len(said):
            return _numbers(values)
        scale = 1.0 / np.asarray(told["temperatures"], np.float64)
        if told["kind"] == "single":
            return _numbers(softmax(log_probabilities(values) * scale))
        return _numbers(sigmoid(logits(values) * scale + np.asarray(told["biases"], np.float64)))


def head_of(label: str) -> str:
    """The head of the reference bundle that says a label, as evidence names it."""
    kind = label.partition(":")[0]
    return {"sound": "sound_events", "action": "ego_action", "intent": "intent"}.get(kind, "scene_tags")


def sound_onsets(decision: Decision) -> dict[str, float]:
    """How long before the frame each sound began, s, by label; empty where the bundle does not tell."""
    for head, readings in decision.heads:
        if head == "sound_onsets":
            return {of_sound(reading.label): reading.value for reading in readings}
    return {}


def _fits(told: Any, labels: Sequence[str]) -> bool:
    """Whether a head's confidence is one: a bundle may come from elsewhere."""
    if not isinstance(told, dict) or told.get("kind") not in ("single", "multi") or not labels:
        return False
    try:
        temperatures = np.asarray(told["temperatures"], np.float64)
        biases = np.asarray(told["biases"], np.float64)
    except (KeyError, TypeError, ValueError):
        return False
    shapes = temperatures.shape == biases.shape == (len(labels),)
    return shapes and bool(np.isfinite(biases).all() and np.isfinite(temperatures).all() and (temperatures > 0).all())


def _numbers(values: F64) -> list[float]:
    numbers: list[float] = values.tolist()
    return numbers
