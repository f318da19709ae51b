"""Bundles that are as good as the reference bundle: what fine-tuning, packing and tidying change without harm."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edge import bundle as bundles
from edge import golden

from .workshop import OWN, Draft, draft, node

F32 = np.float32
Change = Callable[[Draft], None]


def make(kind: str, folder: Path) -> tuple[Path, tuple[str, ...]]:
    """Its folder, and the hardware that it is released for."""
    made = draft()
    made.manifest["version"] = "4"
    KINDS[kind](made)
    return made.write(folder), made.hardware


def nudged(engine: str, seed: int, share: float = 0.03) -> Change:
    """Some weights of an engine one int8 step off, or a thousandth where it is float."""

    def change(d: Draft) -> None:
        rng = np.random.default_rng(seed)

        def edit(name: str, values: Any) -> Any:
            if "spectrum" in name:
                return values
            if values.dtype == np.int8:
                moved = values + rng.integers(-1, 2, values.shape) * (rng.random(values.shape) < share)
                return np.where(np.abs(values.astype(int)) >= 126, values, moved)
            if values.dtype.kind == "f":
                return values * (1 + rng.normal(0, 1e-3, values.shape))
            return values

        d.all_weights(engine, edit)

    return change


def heads_tuned(seed: int) -> Change:
    """A little more training of the heads alone."""

    def change(d: Draft) -> None:
        rng = np.random.default_rng(seed)
        for head in ("scene_tags", "sound_events", "ego_action", "intent"):
            for part, share in (("weight.half", 0.01), ("bias", 0.02)):
                d.weights(
                    "fuse", f"net.heads.{head}.{part}", lambda w, s=share: w + rng.normal(0, s * w.std(), w.shape)
                )

    return change


def thresholds_moved(by: float) -> Change:
    """Thresholds chosen on other validation drives."""

    def change(d: Draft) -> None:
        told = d.manifest["thresholds"]
        for head in ("scene_tags", "sound_events"):
            told[head] = [round(min(max(value + by, 0.05), 0.95), 3) for value in told[head]]
        told["objects"] = round(told["objects"] + by, 3)

    return change


def warmer(temperature: float) -> Change:
    """Confidence fitted again."""

    def change(d: Draft) -> None:
        for told in d.manifest["confidence"].values():
            told["temperatures"] = [value * temperature for value in told["temperatures"]]

    return change


def only_for(*hardware: str) -> Change:
    """Lowerings for these classes alone."""

    def change(d: Draft) -> None:
        d.hardware = hardware
        for targets in d.models.values():
            for target in [name for name in targets if name != OWN and name not in hardware]:
                del targets[target]

    return change


def _nothing(d: Draft) -> None:
    """Packed again."""


def _notes(d: Draft) -> None:
    d.manifest |= {"notes": "the same weights, a new ticket", "lineage": {**d.manifest["lineage"], "reviewed": "yes"}}


def _warm_up(d: Draft) -> None:
    d.manifest["warm_up"] = 5


def _other_golden(d: Draft) -> None:
    d.golden = golden.made_inputs(bundles.load(), 1)


def _identity(d: Draft) -> None:
    d.after("fuse", "scene_tags", lambda raw, out: [node("Identity", [raw], [out])])


def _documented(d: Draft) -> None:
    def edit(model: Any) -> None:
        model.producer_name, model.doc_string = "another exporter", "with words"

    for name in d.models:
        d.each(name, edit)


def _one_more_label(d: Draft) -> None:
    """A head that learned a tag more, behind the others."""
    d.manifest["heads"]["scene_tags"].append("roadworks_ahead")
    d.manifest["thresholds"]["scene_tags"].append(0.5)
    told = d.manifest["confidence"]["scene_tags"]
    for key, value in (("temperatures", 1.0), ("biases", 0.0), ("f1_thresholds", None), ("recall_thresholds", None)):
        if key in told:
            told[key] = [*told[key], value]
    rng = np.random.default_rng(9)
    d.weights(
        "fuse", "net.heads.scene_tags.weight.half", lambda w: np.concatenate([w, rng.normal(0, 0.01, (1, w.shape[1]))])
    )
    d.weights("fuse", "net.heads.scene_tags.bias", lambda w: np.concatenate([w, [-6.0]]))

    def widen(model: Any) -> None:
        for port in model.graph.output:
            if port.name == "scene_tags":
                port.type.tensor_type.shape.dim[1].dim_value = 18

    d.each("fuse", widen)


def _together(*changes: Change) -> Change:
    def change(d: Draft) -> None:
        for each in changes:
            each(d)

    return change


KINDS: dict[str, Change] = {
    "packed again": _nothing,
    "notes and lineage": _notes,
    "longer warm-up": _warm_up,
    "other golden inputs": _other_golden,
    "an identity more": _identity,
    "another exporter's words": _documented,
    "for x86 alone": only_for("x86"),
    "for x86 and arm": only_for("x86", "arm"),
    "thresholds +0.01": thresholds_moved(0.01),
    "thresholds -0.01": thresholds_moved(-0.01),
    "confidence refitted, warmer": warmer(1.05),
    "confidence refitted, colder": warmer(0.96),
    "one label more": _one_more_label,
    "camera nudged 1": nudged("camera", 1),
    "camera nudged 2": nudged("camera", 2),
    "audio nudged": nudged("audio", 3),
    "motion nudged": nudged("motion", 4),
    "lidar nudged": nudged("lidar", 5),
    "fusion nudged 1": nudged("fuse", 6),
    "fusion nudged 2": nudged("fuse", 7),
    "heads tuned 1": heads_tuned(8),
    "heads tuned 2": heads_tuned(9),
    "all nudged 1": _together(*(nudged(name, 10) for name in ("camera", "audio", "motion", "lidar", "fuse"))),
    "all nudged 2": _together(*(nudged(name, 11) for name in ("camera", "audio", "motion", "lidar", "fuse"))),
}
