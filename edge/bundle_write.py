"""Writes a bundle: ONNX files, lowerings, golden vectors, and a canonical manifest that names their digests.

The same parts give the same bytes, whatever the folder, the user or the order of hashing; golden answers are those of
the CPU that packs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from edge import bundle as bundles
from edge import golden
from edge.bundle import FORMAT, MANIFEST
from edge.errors import BundleError
from edge.model_file import patch

GOLDEN: Final = "golden.npz"
FUSE: Final = "fuse"


@dataclass(frozen=True, slots=True)
class Parts:
    """What a bundle is made of.

    Attributes:
        manifest: as docs/bundles.md has it, without files, digests and golden vectors.
        models: engine -> ONNX.
        lowerings: engine -> target -> ONNX.
        golden: engine -> input tensor -> one row a case; None makes no golden vectors.
    """

    manifest: Mapping[str, Any]
    models: Mapping[str, bytes]
    lowerings: Mapping[str, Mapping[str, bytes]] = field(default_factory=dict)
    golden: Mapping[str, golden.Tensors] | None = None


def write(folder: Path, parts: Parts) -> dict[str, Any]:
    """Write the folder (made if absent; what an older bundle in it named and this one does not is removed).

    Returns:
        The manifest.

    Raises:
        BundleError: golden vectors are asked for and an engine does not run.
    """
    folder.mkdir(parents=True, exist_ok=True)
    old = _named(folder)
    manifest: dict[str, Any] = {"format": FORMAT, **parts.manifest}
    manifest["encoders"] = dict(manifest["encoders"])
    for name, model in parts.models.items():
        entry = _engine(folder, name, model, parts.lowerings.get(name, {}))
        if name == FUSE:
            manifest[FUSE] = {**manifest[FUSE], **entry}
        else:
            manifest["encoders"][name] = {**manifest["encoders"][name], **entry}
    _write_manifest(folder, manifest)
    if parts.golden is not None:
        manifest["golden"] = _golden(folder, parts.golden)
        _write_manifest(folder, manifest)
    for name in old - _named(folder):
        (folder / name).unlink(missing_ok=True)
    return manifest


def canonical(value: object) -> str:
    """JSON with sorted keys, 2-space indent, a trailing newline and no NaN."""
    return json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n"


def _write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    (folder / MANIFEST).write_text(canonical(manifest))


def _engine(folder: Path, name: str, model: bytes, lowerings: Mapping[str, bytes]) -> dict[str, Any]:
    file = f"{name}.onnx"
    (folder / file).write_bytes(model)
    entry: dict[str, Any] = {"file": file, "sha256": hashlib.sha256(model).hexdigest()}
    if lowerings:
        entry["lowerings"] = {
            target: _lowering(folder, file, model, f"{name}.{target}", lowered) for target, lowered in lowerings.items()
        }
    return entry


def _lowering(folder: Path, base: str, model: bytes, stem: str, lowered: bytes) -> dict[str, str]:
    digest = hashlib.sha256(lowered).hexdigest()
    if lowered == model:
        return {"file": base, "sha256": digest}
    small = patch(model, lowered)
    if len(small) > len(lowered) // 2:  # shares too little to be worth unfolding
        (folder / f"{stem}.onnx").write_bytes(lowered)
        return {"file": f"{stem}.onnx", "sha256": digest}
    (folder / f"{stem}.patch").write_bytes(small)
    return {"file": f"{stem}.patch", "sha256": digest, "base": base}


def _golden(folder: Path, inputs: Mapping[str, golden.Tensors]) -> dict[str, Any]:
    bundle = bundles.load(folder)
    unknown = sorted(set(inputs) - set(bundle.engines))
    if unknown:
        raise BundleError(f"{folder}: expected golden inputs of {', '.join(bundle.engines)}, got {unknown[0]!r}")
    answers = golden.answered(bundle, inputs)
    golden.Golden(dict(inputs), answers).write(folder / GOLDEN)
    digest = hashlib.sha256((folder / GOLDEN).read_bytes()).hexdigest()
    return {"file": GOLDEN, "sha256": digest, "tolerances": golden.tolerances(bundle, answers)}


def _named(folder: Path) -> set[str]:
    """Files that the folder's manifest names, if it has one that can be read."""
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        entries = [*manifest["encoders"].values(), manifest.get(FUSE) or {}, manifest.get("golden") or {}]
        entries += [lowering for entry in entries for lowering in entry.get("lowerings", {}).values()]
        return {entry["file"] for entry in entries if Path(entry.get("file", "/")).name == entry.get("file")}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return set()
