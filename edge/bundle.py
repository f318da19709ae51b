"""A bundle: a folder with a manifest and the engines it names, content-addressed.

The manifest gives the SHA-256 of each file; the bundle's id is the SHA-256 of the manifest. Nothing of a bundle is used
before its files are what the manifest says.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from edge.bundle_check import check_heads, check_input
from edge.errors import BundleError

MANIFEST: Final = "manifest.json"
FORMAT: Final = 1
REFERENCE: Final = Path(__file__).parent / "bundles" / "reference"
MODALITIES: Final = ("camera", "audio", "motion", "lidar")
_MAX_MANIFEST_BYTES: Final = 4 << 20
_MAX_THREADS: Final = 64
_MAX_WARM_UP: Final = 1000
_BLOCK_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """One engine of a bundle.

    Attributes:
        path: its ONNX file.
        precision: int8, fp32, ...
        input: name, dtype and the preprocessing of its input (see docs/bundles.md).
        outputs: role -> tensor name.
        state: input tensor -> output tensor that becomes it at the next step.
        decoder: how foreign outputs become detections; "" where the graph does it.
        constants: input tensor -> its value, which never changes.
    """

    path: Path
    precision: str
    input: dict[str, Any]
    outputs: dict[str, str]
    state: dict[str, str] = field(default_factory=dict)
    decoder: str = ""
    constants: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FuseSpec:
    """The fusion engine: embeddings by modality, a presence mask and a recurrent state in; heads and scores out."""

    path: Path
    precision: str
    inputs: tuple[str, ...]
    presence: str
    outputs: dict[str, str]
    state: dict[str, str]


@dataclass(frozen=True, slots=True)
class Bundle:
    """A verified bundle."""

    path: Path
    id: str
    name: str
    version: str
    encoders: dict[str, EngineSpec]
    fuse: FuseSpec | None
    heads: dict[str, tuple[str, ...]]
    thresholds: dict[str, Any]
    threads: int
    warm_up: int
    manifest: dict[str, Any] = field(repr=False)


def load(path: Path | str | None = None) -> Bundle:
    """Read and verify a bundle.

    Args:
        path: the folder; None takes the reference bundle that comes with roadfuse.

    Raises:
        BundleError: missing, incomplete, altered, or of another format.
    """
    folder = REFERENCE if path is None else Path(path)
    manifest_path = folder / MANIFEST
    if not folder.is_dir():
        raise BundleError(f"{folder}: expected a bundle folder, got {'a file' if folder.exists() else 'nothing'}")
    if not manifest_path.is_file():
        raise BundleError(f"{folder}: expected a {MANIFEST}, got none")
    size = manifest_path.stat().st_size
    if size > _MAX_MANIFEST_BYTES:
        raise BundleError(f"{manifest_path}: expected at most {_MAX_MANIFEST_BYTES} bytes, got {size}")
    raw = manifest_path.read_bytes()
    try:
        manifest = json.loads(raw)
        if not isinstance(manifest, dict):
            raise TypeError(f"expected an object, got {type(manifest).__name__}")
        if manifest.get("format") != FORMAT:
            raise BundleError(f"{manifest_path}: expected format {FORMAT}, got {manifest.get('format')!r}")
        return _bundle(folder, hashlib.sha256(raw).hexdigest(), manifest)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError(f"{manifest_path}: expected JSON, got {error}") from None
    except KeyError as error:
        raise BundleError(f"{manifest_path}: expected the key {error}, got none") from None
    except (TypeError, ValueError, AttributeError) as error:
        raise BundleError(f"{manifest_path}: {error}") from None


def _bundle(folder: Path, bundle_id: str, manifest: dict[str, Any]) -> Bundle:
    encoders = {}
    for modality, entry in manifest["encoders"].items():
        if modality not in MODALITIES:
            raise ValueError(f"expected encoders of {', '.join(MODALITIES)}, got {modality!r}")
        check_input(modality, entry["input"])
        encoders[modality] = EngineSpec(
            path=_verified(folder, entry),
            precision=str(entry["precision"]),
            input=dict(entry["input"]),
            outputs=dict(entry["outputs"]),
            state=dict(entry.get("state", {})),
            decoder=str(entry.get("decoder", "")),
            constants=dict(entry.get("constants", {})),
        )
    if not encoders:
        raise ValueError("expected at least one encoder, got none")
    fuse = None
    if manifest.get("fuse"):
        entry = manifest["fuse"]
        fuse = FuseSpec(
            path=_verified(folder, entry),
            precision=str(entry["precision"]),
            inputs=tuple(entry["inputs"]),
            presence=str(entry["presence"]),
            outputs=dict(entry["outputs"]),
            state=dict(entry["state"]),
        )
        if not set(fuse.inputs) <= set(encoders):
            raise ValueError(f"expected fuse inputs among the encoders {sorted(encoders)}, got {fuse.inputs}")
    heads = {name: tuple(map(str, labels)) for name, labels in manifest["heads"].items()}
    thresholds = dict(manifest["thresholds"])
    engines: dict[str, EngineSpec | FuseSpec] = {**encoders, **({"fuse": fuse} if fuse else {})}
    roles = {role for name, spec in engines.items() for role in spec.outputs if role != "objects" or name == "camera"}
    check_heads(heads, thresholds, roles)
    return Bundle(
        path=folder,
        id=bundle_id,
        name=str(manifest["name"]),
        version=str(manifest["version"]),
        encoders=encoders,
        fuse=fuse,
        heads=heads,
        thresholds=thresholds,
        threads=_count(manifest, "threads", 1, _MAX_THREADS),
        warm_up=_count(manifest, "warm_up", 3, _MAX_WARM_UP),
        manifest=manifest,
    )


def _count(manifest: dict[str, Any], key: str, default: int, most: int) -> int:
    count = manifest.get(key, default)
    if type(count) is not int or not 1 <= count <= most:
        raise ValueError(f"expected {key} of 1..{most}, got {str(count)[:40]}")
    return count


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _verified(folder: Path, entry: dict[str, Any]) -> Path:
    """The entry's file, once its digest is what the manifest says."""
    name, expected = str(entry["file"]), str(entry["sha256"])
    path = folder / name
    if name in ("", ".", "..") or Path(name).name != name:
        raise ValueError(f"expected a file name inside the bundle, got {name!r}")
    if not path.is_file():
        raise BundleError(f"{path}: expected an engine of the bundle, got no file")
    digest = _sha256(path)
    if digest != expected:
        raise BundleError(f"{path}: expected SHA-256 {expected[:16]}..., got {digest[:16]}...")
    return path
