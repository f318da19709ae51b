"""Writes a bundle of what was trained: the fixed contract of its engines around what training gives.

The manifest's layout is what edge/bundle.py checks on the vehicle; nothing here needs PyTorch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edge import bundle_write
from edge.bundle_write import FUSE, Parts
from export.model.contract import INPUTS

OUTPUTS: dict[str, dict[str, str]] = {
    "camera": {"embedding": "embedding", "objects": "objects"},
    "audio": {"embedding": "embedding"},
    "motion": {"embedding": "embedding"},
    "lidar": {"embedding": "embedding"},
}
FUSE_OUTPUTS = ("embedding", "scene_tags", "sound_events", "scores")


@dataclass(frozen=True, slots=True)
class BundleContent:
    """What goes into a bundle.

    Attributes:
        engines: by name: those of INPUTS that there are, and fuse.
        precisions: by engine.
        heads: labels, or a kind and labels, by head (docs/bundles.md).
        thresholds: probabilities: a list, one a label; one number for objects and masks.
        figures, lineage: JSON values; their floats and the thresholds are rounded.
        confidence: JSON values, as calibration/confidence.py has them.
        ranges: ranges id by int8 engine.
        lowerings: engine -> target (x86, trt, arm) -> the same engine for it.
        golden: engine -> input tensor -> one row a case, answered when the bundle is written; None for no vectors.
        inputs, outputs: by engine, where they differ from INPUTS, OUTPUTS and FUSE_OUTPUTS.
    """

    engines: Mapping[str, onnx.ModelProto]
    precisions: Mapping[str, str]
    heads: Mapping[str, Any]
    thresholds: Mapping[str, object]
    figures: Mapping[str, object]
    lineage: Mapping[str, object]
    name: str = "reference"
    version: str = "1"
    ranges: Mapping[str, str] = field(default_factory=dict)
    confidence: Mapping[str, object] = field(default_factory=dict)
    lowerings: Mapping[str, Mapping[str, onnx.ModelProto]] = field(default_factory=dict)
    golden: Mapping[str, dict[str, NDArray[np.generic]]] | None = None
    inputs: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    outputs: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def write_bundle(folder: Path, content: BundleContent) -> dict[str, Any]:
    """Writes engines and manifest.json into `folder` (made if absent) and returns the manifest."""
    entries: dict[str, dict[str, object]] = {name: _engine(name, content) for name in content.engines}
    fuse = entries.pop(FUSE, None)
    if fuse is not None:
        fuse |= {
            "inputs": [name for name in INPUTS if name in entries],
            "presence": "presence",
            "state": {"state": "state_next"},
        }
    for name, entry in entries.items():
        entry["input"] = dict(content.inputs.get(name, INPUTS[name]))
    manifest: dict[str, object] = {
        "name": content.name,
        "version": content.version,
        "encoders": entries,
        "heads": dict(content.heads),
        "thresholds": _rounded(content.thresholds),
        "threads": 1,
        "warm_up": 3,
        "figures": _rounded(content.figures),
        "lineage": _rounded(content.lineage),
    }
    manifest |= {FUSE: fuse} if fuse else {}
    manifest |= {"confidence": dict(content.confidence)} if content.confidence else {}
    models = {name: _bytes(model) for name, model in content.engines.items()}
    lowerings = {
        name: {target: _bytes(model) for target, model in targets.items()}
        for name, targets in content.lowerings.items()
    }
    return bundle_write.write(folder, Parts(manifest, models, lowerings, content.golden))


def canonical(value: object) -> str:
    """Sorted keys, 2-space indent, trailing newline; floats to 5 significant digits, no NaN."""
    return bundle_write.canonical(_rounded(value))


def folder_bytes(folder: Path) -> int:
    """Size of all files of a bundle."""
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())


def _engine(name: str, content: BundleContent) -> dict[str, object]:
    usual = {head: head for head in FUSE_OUTPUTS} if name == FUSE else OUTPUTS[name]
    entry: dict[str, object] = {
        "precision": content.precisions[name], "outputs": dict(content.outputs.get(name, usual)),
    }  # fmt: skip
    if name in content.ranges:
        entry["ranges_id"] = content.ranges[name]
    return entry


def _bytes(model: onnx.ModelProto) -> bytes:
    return bytes(model.SerializeToString(deterministic=True))


def _rounded(value: object) -> object:
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return float(f"{value:.5g}")
    if isinstance(value, Mapping):
        return {str(key): _rounded(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(inner) for inner in value]
    return value
