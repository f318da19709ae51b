"""Heads: what a bundle's outputs say of a frame. Each has labels, and a kind that says how its tensor is read.

multi    (1, labels)  probabilities, each label's own
single   (1, labels)  probabilities of labels that exclude each other (a softmax)
onset    (1, labels)  how long before the frame each label's event began, s
objects  (1, objects, 6 or 7), or what the encoder's decoder reads: boxes, perhaps each with a finer kind
mask     (1, labels, rows, columns) float32 probabilities, or (1, rows, columns) uint8 labels: a grid over the picture
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge.errors import BundleError

KINDS: Final = ("multi", "single", "onset", "objects", "mask")
VECTORS: Final = ("multi", "single", "onset")  # kinds with one value a label
OF_THE_CAMERA: Final = ("objects", "mask")
# Heads whose kind goes without saying; an own field of a decision has the first three.
KNOWN: Final = {
    "scene_tags": "multi",
    "sound_events": "multi",
    "objects": "objects",
    "lanes": "mask",
    "intent": "single",
    "ego_action": "single",
    "sound_onsets": "onset",
}
NO_LABEL: Final = 255  # of a mask's cell
_RESERVED: Final = ("embedding", "scores")  # roles of outputs that are no heads
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,39}")
_MAX_LABELS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Head:
    """One head.

    Attributes:
        kind: of KINDS.
        labels: in the tensor's order.
        kinds: of objects: label -> the finer kinds that a box of it may be, in the order of the row's seventh value.
    """

    kind: str
    labels: tuple[str, ...]
    kinds: dict[str, tuple[str, ...]] = field(default_factory=dict)


def parse_heads(entries: Mapping[str, Any], roles: Collection[str], of_camera: Collection[str]) -> dict[str, Head]:
    """Heads of a manifest or a mapping: labels alone where the kind is known, else an object of kind and labels.

    Args:
        roles: of all outputs.
        of_camera: roles of the camera's outputs, where objects and masks must be.

    Raises:
        ValueError: what, expected, got.
    """
    heads = {}
    for name, entry in entries.items():
        if not _NAME.fullmatch(name) or name in _RESERVED:
            raise ValueError(f"expected a head's name of a-z, 0-9 and _, got {name[:40]!r}")
        heads[name] = head = _parsed(name, entry)
        there = of_camera if head.kind in OF_THE_CAMERA else roles
        if name not in there:
            raise ValueError(f"expected an output for the head {name!r}, got outputs {', '.join(sorted(there))}")
    return heads


def check_thresholds(heads: Mapping[str, Head], thresholds: Mapping[str, Any]) -> None:
    """Refuse thresholds that fit no head: one a label, or one number for objects and masks.

    Raises:
        ValueError: what, expected, got.
    """
    for name, threshold in thresholds.items():
        if name not in heads:
            raise ValueError(f"expected thresholds of {', '.join(heads)}, got {name!r}")
        head = heads[name]
        if head.kind == "onset":
            raise ValueError(
                f"thresholds of {name}: expected none, for its values are times, got {str(threshold)[:80]}"
            )
        if (head.kind in OF_THE_CAMERA) == isinstance(threshold, list):
            wanted = "one number" if head.kind in OF_THE_CAMERA else "a list"
            raise ValueError(f"thresholds of {name}: expected {wanted}, got {str(threshold)[:80]}")
        values = threshold if isinstance(threshold, list) else [threshold]
        if len(values) != (count := len(head.labels) if isinstance(threshold, list) else 1):
            raise ValueError(f"thresholds of {name}: expected {count}, got {str(threshold)[:80]}")
        if not all(isinstance(value, (int, float)) and type(value) is not bool and 0 <= value <= 1 for value in values):
            raise ValueError(f"thresholds of {name}: expected 0..1, got {str(threshold)[:80]}")


def check_values(path: Path, name: str, head: Head, values: NDArray[Any]) -> None:
    """Refuse a head whose tensor has not one value a label, or is no mask of them.

    Raises:
        BundleError: what, expected, got.
    """
    count, shape = len(head.labels), values.shape
    if head.kind in VECTORS and values.size != count:
        raise BundleError(f"{path}: expected {count} values of {name}, one a label, got shape {shape}")
    if head.kind == "mask":
        if count >= NO_LABEL:
            raise BundleError(f"{path}: expected at most {NO_LABEL - 1} labels of {name}, a cell's byte, got {count}")
        labelled = values.dtype == np.uint8 and len(shape) == 3 and shape[0] == 1
        if not labelled and not (values.dtype == np.float32 and len(shape) == 4 and shape[:2] == (1, count)):
            raise BundleError(
                f"{path}: expected {name} as uint8(1, rows, columns) or float32(1, {count}, rows, columns), "
                f"got {values.dtype}{shape}"
            )


def mask_cells(values: NDArray[Any], threshold: float) -> NDArray[np.uint8]:
    """The label of each cell of a mask, (rows, columns): the most probable one that reaches the threshold, else 255."""
    if values.dtype == np.uint8:
        labels: NDArray[np.uint8] = values[0]
        return labels
    cells: NDArray[np.uint8] = values[0].argmax(axis=0).astype(np.uint8)
    cells[values[0].max(axis=0) < threshold] = NO_LABEL
    return cells


def _parsed(name: str, entry: Any) -> Head:
    if not isinstance(entry, Mapping):
        if name not in KNOWN:
            raise ValueError(f"head {name!r}: expected its kind (a kind and labels), got {str(entry)[:80]}")
        entry = {"labels": entry}
    unknown = sorted(set(entry) - {"kind", "labels", "kinds"})
    if unknown:
        raise ValueError(f"head {name!r}: expected the keys kind, labels and kinds, got {unknown[0]!r}")
    kind, kinds = entry.get("kind", KNOWN.get(name)), entry.get("kinds", {})
    if kind not in KINDS or KNOWN.get(name, kind) != kind:
        wanted = KNOWN.get(name) or ", ".join(KINDS)
        raise ValueError(f"head {name!r}: expected a kind of {wanted}, got {str(kind)[:40]!r}")
    labels = _labels(name, entry.get("labels"))
    if not isinstance(kinds, Mapping) or (kinds and kind != "objects") or not set(kinds) <= set(labels):
        raise ValueError(f"head {name!r}: expected kinds of an objects head, by label, got {str(kinds)[:80]}")
    return Head(kind, labels, {label: _labels(f"{name} {label}", finer) for label, finer in kinds.items()})


def _labels(name: str, labels: Any) -> tuple[str, ...]:
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise ValueError(f"expected a list of labels of the head {name!r}, got {str(labels)[:80]}")
    if not 1 <= len(labels) <= _MAX_LABELS:
        raise ValueError(f"expected labels of the head {name!r}, got {len(labels) or 'none'}")
    return tuple(labels)
