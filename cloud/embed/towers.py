"""The encoders' files of one space: a bundle's own engines, and the towers of text and video that were trained with it.

`towers.json` names the bundle and the SHA-256 of each tower's file; nothing is used before it is what it should be.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import export
from cloud.embed.item import Modality
from cloud.errors import ModelError
from edge import bundle as bundles
from edge.bundle import Bundle
from edge.errors import BundleError, ConfigError
from export.model.tokens import Vocabulary

MANIFEST: Final = "towers.json"
REFERENCE: Final = Path(export.__file__).parent / "reference"
FILES: Final = ("text.onnx", "video.onnx", "vocabulary.json")
ENGINES: Final[dict[Modality, str]] = {"image": "camera", "audio": "audio", "motion": "motion", "lidar": "lidar"}
_MAX_MANIFEST_BYTES: Final = 64 << 10
_MAX_TOWER_BYTES: Final = 1 << 30


@dataclass(frozen=True, slots=True)
class Towers:
    """Everything that embeds into one space, verified, not yet loaded.

    Attributes:
        space: the bundle's id.
        text, video: ONNX.
        models: modality -> SHA-256 of what encodes it.
    """

    space: str
    bundle: Bundle
    text: bytes
    video: bytes
    vocabulary: Vocabulary
    models: dict[Modality, str]


def load(folder: Path | None = None, bundle: Path | None = None) -> Towers:
    """Read and verify the towers and their bundle.

    Args:
        folder: of towers.json and its files; None: the bundle's own folder where they lie there, else those of the
            reference bundle.
        bundle: folder; None: the reference bundle.

    Raises:
        ModelError: missing, altered, or trained with another bundle.
    """
    if folder is None:
        folder = bundle if bundle is not None and (bundle / MANIFEST).is_file() else REFERENCE
    try:
        of = bundles.load(bundle)
    except BundleError as error:
        raise ModelError(str(error)) from None
    named = _manifest(folder / MANIFEST)
    if named["space"] != of.id:
        raise ModelError(f"{folder / MANIFEST}: expected towers of bundle {of.id[:16]}, got {str(named['space'])[:16]}")
    content = {name: _verified(folder / name, named["files"].get(name)) for name in FILES}
    try:
        vocabulary = Vocabulary.open(folder / "vocabulary.json")
    except ConfigError as error:
        raise ModelError(str(error)) from None
    models: dict[Modality, str] = {"text": _joint(named["files"][name] for name in ("text.onnx", "vocabulary.json"))}
    for modality, engine in ENGINES.items():
        spec = of.encoders.get(engine)
        if spec is not None and "embedding" in spec.outputs:
            models[modality] = spec.model("cpu").sha256
    if "image" in models:
        models["video"] = _joint((models["image"], named["files"]["video.onnx"]))
    return Towers(of.id, of, content["text.onnx"], content["video.onnx"], vocabulary, models)


def _manifest(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MAX_MANIFEST_BYTES:
            raise ModelError(f"{path}: expected at most {_MAX_MANIFEST_BYTES} bytes, got {path.stat().st_size}")
        named = bundles.parse_json(path.read_bytes())
    except OSError as error:
        raise ModelError(f"{path}: expected the list of towers, got {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: expected JSON, got {error}") from None
    if not isinstance(named, dict) or not isinstance(named.get("files"), dict) or "space" not in named:
        raise ModelError(f"{path}: expected an object of space and files, got {str(named)[:80]}")
    return named


def _verified(path: Path, sha256: object) -> bytes:
    try:
        size = path.stat().st_size
        if size > _MAX_TOWER_BYTES:
            raise ModelError(f"{path}: expected at most {_MAX_TOWER_BYTES} bytes, got {size}")
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: expected a tower, got {error.strerror}") from None
    got = hashlib.sha256(content).hexdigest()
    if got != sha256:
        raise ModelError(f"{path}: expected SHA-256 {str(sha256)[:16]}..., got {got[:16]}...")
    return content


def _joint(digests: Any) -> str:
    """One digest of several, for what several files encode together."""
    return hashlib.sha256(" ".join(digests).encode()).hexdigest()
