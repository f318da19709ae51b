"""Writes a bundle folder: ONNX engines and a canonical manifest that names their digests.

The manifest's layout is what edge/bundle.py checks on the vehicle; nothing here needs PyTorch.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import onnx

FORMAT = 1
INPUTS: dict[str, dict[str, object]] = {
    "camera": {
        "name": "image", "dtype": "uint8", "layout": "NHWC", "width_px": 320, "height_px": 192, "color": "BGR",
    },
    "audio": {"name": "pcm", "dtype": "float32", "rate_hz": 16000, "samples": 16000},
    "motion": {"name": "motion", "dtype": "float32", "channels": 12, "steps": 50, "window_ns": 1_000_000_000},
}  # fmt: skip
OUTPUTS: dict[str, dict[str, str]] = {
    "camera": {"embedding": "embedding", "objects": "objects"},
    "audio": {"embedding": "embedding"},
    "motion": {"embedding": "embedding"},
}
FUSE_OUTPUTS = ("embedding", "scene_tags", "sound_events", "scores")


@dataclass(frozen=True, slots=True)
class BundleContent:
    """What goes into a bundle besides the fixed contract.

    engines, precisions: by engine name (camera, audio, motion, fuse). heads: labels by head. thresholds: probabilities,
    a list for a multi-label head, one number for objects. figures, lineage: JSON values; floats are rounded.
    """

    engines: Mapping[str, onnx.ModelProto]
    precisions: Mapping[str, str]
    heads: Mapping[str, list[str]]
    thresholds: Mapping[str, object]
    figures: Mapping[str, object]
    lineage: Mapping[str, object]
    name: str = "reference"
    version: str = "1"
    ranges: Mapping[str, str] = field(default_factory=dict)  # ranges id by int8 engine


def write_bundle(folder: Path, content: BundleContent) -> dict[str, object]:
    """Writes engines and manifest.json into `folder` (made if absent) and returns the manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    entries: dict[str, dict[str, object]] = {}
    for name, model in content.engines.items():
        entries[name] = _engine(folder, name, model, content)
    fuse = entries.pop("fuse")
    fuse |= {
        "inputs": list(INPUTS),
        "presence": "presence",
        "state": {"state": "state_next"},
        "outputs": {name: name for name in FUSE_OUTPUTS},
    }
    for name, entry in entries.items():
        entry |= {"input": INPUTS[name], "outputs": OUTPUTS[name]}
    manifest: dict[str, object] = {
        "format": FORMAT,
        "name": content.name,
        "version": content.version,
        "encoders": entries,
        "fuse": fuse,
        "heads": dict(content.heads),
        "thresholds": dict(content.thresholds),
        "threads": 1,
        "warm_up": 3,
        "figures": dict(content.figures),
        "lineage": dict(content.lineage),
    }
    (folder / "manifest.json").write_text(canonical(manifest))
    return manifest


def canonical(value: object) -> str:
    """Sorted keys, 2-space indent, trailing newline; floats to 5 significant digits, no NaN."""
    return json.dumps(_rounded(value), indent=2, sort_keys=True, allow_nan=False) + "\n"


def folder_bytes(folder: Path) -> int:
    """Size of all files of a bundle."""
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())


def _engine(folder: Path, name: str, model: onnx.ModelProto, content: BundleContent) -> dict[str, object]:
    serialised = model.SerializeToString(deterministic=True)
    (folder / f"{name}.onnx").write_bytes(serialised)
    entry: dict[str, object] = {
        "file": f"{name}.onnx",
        "sha256": hashlib.sha256(serialised).hexdigest(),
        "precision": content.precisions[name],
    }
    if name in content.ranges:
        entry["ranges_id"] = content.ranges[name]
    return entry


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
