"""A bundle: a folder with a manifest and the engines it names, content-addressed.

The manifest gives the SHA-256 of each file; the bundle's id is the SHA-256 of the manifest. Nothing of a bundle is used
before its files are what the manifest says.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from edge.bundle_check import check_input
from edge.errors import BundleError
from edge.heads import Head, check_thresholds, parse_heads
from edge.model_file import TARGETS, ModelFile, check_digest, model_for, sha256_of

MANIFEST: Final = "manifest.json"
FORMAT: Final = 1
REFERENCE: Final = Path(__file__).parent / "bundles" / "reference"
MODALITIES: Final = ("camera", "audio", "motion", "lidar")
MAX_GOLDEN_BYTES: Final = 64 << 20
_MAX_MANIFEST_BYTES: Final = 4 << 20
_MAX_THREADS: Final = 64
_MAX_WARM_UP: Final = 1000


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """One engine of a bundle.

    Attributes:
        file: its ONNX file, which runs where no lowering is for the machine.
        precision: int8, fp32, ...
        input: name, dtype and the preprocessing of its input (see docs/bundles.md).
        outputs: role -> tensor name.
        state: input tensor -> output tensor that becomes it at the next step.
        decoder: how foreign outputs become detections; "" where the graph does it.
        constants: input tensor -> its value, which never changes.
        lowerings: target (x86, trt, arm) -> the same engine for it.
    """

    file: ModelFile
    precision: str
    input: dict[str, Any]
    outputs: dict[str, str]
    state: dict[str, str] = field(default_factory=dict)
    decoder: str = ""
    constants: dict[str, Any] = field(default_factory=dict)
    lowerings: dict[str, ModelFile] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        """Of the ONNX file, as messages name the engine."""
        return self.file.path

    def model(self, provider: str) -> ModelFile:
        """The ONNX model for a provider on this machine."""
        return model_for(self.file, self.lowerings, provider)


@dataclass(frozen=True, slots=True)
class FuseSpec:
    """The fusion engine: embeddings by modality, a presence mask and a recurrent state in; heads and scores out."""

    file: ModelFile
    precision: str
    inputs: tuple[str, ...]
    presence: str
    outputs: dict[str, str]
    state: dict[str, str]
    lowerings: dict[str, ModelFile] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        """Of the ONNX file, as messages name the engine."""
        return self.file.path

    def model(self, provider: str) -> ModelFile:
        """The ONNX model for a provider on this machine."""
        return model_for(self.file, self.lowerings, provider)


@dataclass(frozen=True, slots=True)
class GoldenSpec:
    """Golden vectors: inputs, and what each engine answers to them (edge/golden.py).

    Attributes:
        path: the file.
        tolerances: engine -> target -> output tensor -> largest difference that is none; "" is the engine's own file.
    """

    path: Path
    tolerances: dict[str, dict[str, dict[str, float]]]


@dataclass(frozen=True, slots=True)
class Bundle:
    """A verified bundle.

    Attributes:
        heads: head -> labels.
        head_specs: head -> its kind and labels.
        thresholds: head -> probabilities from which its labels count.
        confidence: how probabilities are calibrated; told, not used by the loop.
        golden: None where the bundle has no golden vectors.
    """

    path: Path
    id: str
    name: str
    version: str
    encoders: dict[str, EngineSpec]
    fuse: FuseSpec | None
    heads: dict[str, tuple[str, ...]]
    head_specs: dict[str, Head]
    thresholds: dict[str, Any]
    threads: int
    warm_up: int
    confidence: dict[str, Any] = field(repr=False)
    golden: GoldenSpec | None
    manifest: dict[str, Any] = field(repr=False)

    @property
    def engines(self) -> dict[str, EngineSpec | FuseSpec]:
        """All engines by name: modalities, and "fuse"."""
        return {**self.encoders, **({"fuse": self.fuse} if self.fuse else {})}


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
        manifest = parse_json(raw)
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


def parse_json(raw: bytes) -> Any:
    """Strict JSON: no NaN or infinity, and no key twice, of which one reader takes the first and another the last.

    Raises:
        ValueError: it is none.
    """
    return json.loads(raw, object_pairs_hook=_unique_keys, parse_constant=_no_constant, parse_float=_finite)


def _no_constant(word: str) -> Any:
    raise ValueError(f"expected numbers, got {word}")


def _finite(word: str) -> float:
    number = float(word)
    if math.isinf(number):
        raise ValueError(f"expected finite numbers, got {word[:40]}")
    return number


def _unique_keys(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    known: dict[str, Any] = {}
    for key, value in pairs:
        if key in known:
            raise ValueError(f"expected each key once, got {key[:80]!r} twice")
        known[key] = value
    return known


def _bundle(folder: Path, bundle_id: str, manifest: dict[str, Any]) -> Bundle:
    encoders = {}
    for modality, entry in manifest["encoders"].items():
        if modality not in MODALITIES:
            raise ValueError(f"expected encoders of {', '.join(MODALITIES)}, got {modality!r}")
        check_input(modality, entry["input"])
        file, lowerings = _models(folder, entry)
        encoders[modality] = EngineSpec(
            file=file,
            precision=str(entry["precision"]),
            input=dict(entry["input"]),
            outputs=_names("outputs", entry["outputs"]),
            state=_names("state", entry.get("state", {})),
            decoder=str(entry.get("decoder", "")),
            constants=_object("constants", entry.get("constants", {})),
            lowerings=lowerings,
        )
    if not encoders:
        raise ValueError("expected at least one encoder, got none")
    fuse = _fuse(folder, manifest["fuse"], encoders) if manifest.get("fuse") else None
    of_camera = set(encoders["camera"].outputs) if "camera" in encoders else set()
    roles = {role for spec in (*encoders.values(), *([fuse] if fuse else ())) for role in spec.outputs}
    heads = parse_heads(manifest["heads"], roles, of_camera)
    thresholds = dict(manifest["thresholds"])
    check_thresholds(heads, thresholds)
    return Bundle(
        path=folder,
        id=bundle_id,
        name=str(manifest["name"]),
        version=str(manifest["version"]),
        encoders=encoders,
        fuse=fuse,
        heads={name: head.labels for name, head in heads.items()},
        head_specs=heads,
        thresholds=thresholds,
        threads=_count(manifest, "threads", 1, _MAX_THREADS),
        warm_up=_count(manifest, "warm_up", 3, _MAX_WARM_UP),
        confidence=_object("confidence", manifest.get("confidence", {})),
        golden=_golden(folder, manifest["golden"]) if manifest.get("golden") else None,
        manifest=manifest,
    )


def _fuse(folder: Path, entry: dict[str, Any], encoders: dict[str, EngineSpec]) -> FuseSpec:
    file, lowerings = _models(folder, entry)
    fuse = FuseSpec(
        file=file,
        precision=str(entry["precision"]),
        inputs=tuple(map(str, entry["inputs"])),
        presence=str(entry["presence"]),
        outputs=_names("outputs", entry["outputs"]),
        state=_names("state", entry["state"]),
        lowerings=lowerings,
    )
    if not set(fuse.inputs) <= set(encoders):
        raise ValueError(f"expected fuse inputs among the encoders {sorted(encoders)}, got {fuse.inputs}")
    for name in fuse.inputs:
        if "embedding" not in encoders[name].outputs:
            raise ValueError(f"expected an output embedding of {name}, which fuse takes, got {encoders[name].outputs}")
    return fuse


def _models(folder: Path, entry: dict[str, Any]) -> tuple[ModelFile, dict[str, ModelFile]]:
    """An engine's file and its lowerings, once all of them are what the manifest says."""
    file = ModelFile(_inside(folder, entry["file"]), str(entry["sha256"]))
    file.verify()
    lowerings = {}
    for target, lowering in _object("lowerings", entry.get("lowerings", {})).items():
        if target not in TARGETS:
            raise ValueError(f"expected lowerings of {', '.join(TARGETS)}, got {target!r}")
        base = lowering.get("base")
        if base is not None and base != entry["file"]:
            raise ValueError(f"expected a lowering on the base of {entry['file']!r}, got {base!r}")
        path = _inside(folder, lowering["file"])
        lowerings[target] = ModelFile(path, str(lowering["sha256"]), file if base is not None else None)
        lowerings[target].verify()
    return file, lowerings


def _golden(folder: Path, entry: dict[str, Any]) -> GoldenSpec:
    path = _inside(folder, entry["file"])
    if not path.is_file():
        raise BundleError(f"{path}: expected the golden vectors of the bundle, got no file")
    size = path.stat().st_size
    if size > MAX_GOLDEN_BYTES:
        raise BundleError(f"{path}: expected at most {MAX_GOLDEN_BYTES} bytes, got {size}")
    check_digest(path, str(entry["sha256"]), sha256_of(path))
    tolerances: dict[str, dict[str, dict[str, float]]] = {}
    for engine, targets in _object("tolerances", entry["tolerances"]).items():
        tolerances[engine] = {
            target: {name: _tolerance(name, value) for name, value in _object("tolerances", tensors).items()}
            for target, tensors in _object("tolerances", targets).items()
        }
    return GoldenSpec(path, tolerances)


def _tolerance(name: str, value: Any) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value < float("inf"):
        raise ValueError(f"golden tolerance of {name}: expected a number of at least 0, got {str(value)[:80]}")
    return float(value)


def _object(what: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"expected {what} to be an object, got {str(value)[:80]}")
    return value


def _names(what: str, value: Any) -> dict[str, str]:
    names = _object(what, value)
    for key, name in names.items():
        if not isinstance(name, str):
            raise ValueError(f"expected {what} {key} to be a tensor name, got {str(name)[:80]}")
    return names


def _count(manifest: dict[str, Any], key: str, default: int, most: int) -> int:
    count = manifest.get(key, default)
    if type(count) is not int or not 1 <= count <= most:
        raise ValueError(f"expected {key} of 1..{most}, got {str(count)[:40]}")
    return count


def _inside(folder: Path, name: Any) -> Path:
    """A file of the bundle's own folder."""
    if not isinstance(name, str) or name in ("", ".", "..", MANIFEST) or Path(name).name != name:
        raise ValueError(f"expected a file name inside the bundle, got {str(name)[:80]!r}")
    return folder / name
