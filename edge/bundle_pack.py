"""A bundle from parts: a folder of ONNX engines and lowerings, and a file that says what they are."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from edge import bundle as bundles
from edge import golden
from edge.bundle import MODALITIES, Bundle
from edge.bundle_write import FUSE, Parts, write
from edge.errors import BundleError, ConfigError
from edge.model_file import MAX_BYTES, TARGETS
from edge.model_mapping import read_json
from edge.perception import Perception
from edge.streams import STREAMS

_MAX_MAPPING_BYTES: Final = 4 << 20
_FILES: Final = ("file", "lowerings")  # keys that name parts; the rest goes into the manifest as it is


def pack(folder: Path, mapping: Path, out: Path, *, target: str = "", with_golden: bool = True) -> Bundle:
    """Write the bundle `out`, once the loop's own engines have loaded and run it.

    Args:
        folder: of the parts.
        mapping: JSON: a manifest without digests, whose engines name files of the folder; `lowerings` is target ->
            file, `golden` an .npz of inputs (ENGINE/TENSOR, one row a case).
        target: x86, trt or arm takes each engine's lowering for it in place of the engine, and leaves out the others.
        with_golden: whether the bundle gets golden vectors; of made-up inputs where the mapping names none.

    Raises:
        ConfigError: the mapping makes no sense, or `out` is already there.
        BundleError: a part is missing, or does not run.
    """
    if out.exists():
        raise ConfigError(f"--out: expected a folder that is not there yet, got {out}")
    described = _read(mapping)
    partial = out.parent / f".{out.name}.partial-{os.getpid()}"
    shutil.rmtree(partial, ignore_errors=True)  # of a killed run: in a container each run has the same number
    try:
        parts = _parts(folder, mapping, described, target)
        write(partial, parts)
        loaded = bundles.load(partial)
        Perception(loaded, STREAMS)
        if with_golden:
            inputs = described.get("golden")
            write(partial, replace(parts, golden=_inputs(folder, inputs) if inputs else golden.made_inputs(loaded)))
        partial.rename(out)
    except BundleError as error:  # say what was given, not where it was tried
        said = str(error).replace(str(partial / bundles.MANIFEST), str(mapping)).replace(str(partial), str(folder))
        raise BundleError(said) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return bundles.load(out)


def _read(path: Path) -> dict[str, Any]:
    described = read_json(path, _MAX_MAPPING_BYTES)
    if not isinstance(described, dict) or not isinstance(described.get("encoders"), dict):
        raise ConfigError(f"{path}: expected an object with encoders, got {str(described)[:80]}")
    return described


def _parts(folder: Path, mapping: Path, described: Mapping[str, Any], target: str) -> Parts:
    for name in described["encoders"]:  # they become names of files
        if name not in MODALITIES:
            raise ConfigError(f"{mapping}: expected encoders of {', '.join(MODALITIES)}, got {name[:80]!r}")
    entries = {**described["encoders"], **({FUSE: described[FUSE]} if described.get(FUSE) else {})}
    models: dict[str, bytes] = {}
    lowerings: dict[str, dict[str, bytes]] = {}
    for name, entry in entries.items():
        if not isinstance(entry, dict) or not isinstance(entry.get("lowerings", {}), dict) or "file" not in entry:
            raise ConfigError(f"{mapping}: expected {name} to be an object with a file, got {str(entry)[:80]}")
        files = entry.get("lowerings", {})
        for wanted in files:
            if wanted not in TARGETS:
                raise ConfigError(f"{mapping}: expected lowerings of {', '.join(TARGETS)}, got {wanted!r}")
        models[name] = _part(folder, files.get(target, entry["file"]))
        if not target and files:
            lowerings[name] = {wanted: _part(folder, file) for wanted, file in sorted(files.items())}
    kept = {key: value for key, value in described.items() if key not in ("format", "golden", "encoders", FUSE)}
    stripped = {
        name: {key: value for key, value in entry.items() if key not in _FILES} for name, entry in entries.items()
    }
    fuse = {FUSE: stripped.pop(FUSE)} if FUSE in stripped else {}
    defaults = {"name": mapping.stem, "version": "1", "heads": {}, "thresholds": {}}
    return Parts({**defaults, **kept, "encoders": stripped, **fuse}, models, lowerings)


def _part(folder: Path, name: Any) -> bytes:
    if not isinstance(name, str) or name in ("", ".", "..") or Path(name).name != name or "\0" in name:
        raise ConfigError(f"{folder}: expected a file name inside the folder, got {str(name)[:80]!r}")
    path = folder / name
    if not path.is_file():
        raise BundleError(f"{path}: expected an ONNX file, got {'a folder' if path.exists() else 'nothing'}")
    if path.stat().st_size > MAX_BYTES:
        raise BundleError(f"{path}: expected at most {MAX_BYTES} bytes, got {path.stat().st_size}")
    return path.read_bytes()


def _inputs(folder: Path, name: Any) -> dict[str, golden.Tensors]:
    if not isinstance(name, str) or name in ("", ".", "..") or Path(name).name != name or "\0" in name:
        raise ConfigError(f"{folder}: expected a file name inside the folder, got {str(name)[:80]!r}")
    inputs: dict[str, golden.Tensors] = {}
    for key, values in golden.arrays_of(folder / name).items():
        engine, _, tensor = key.partition("/")
        if not tensor or not values.ndim:
            raise BundleError(f"{folder / name}: expected arrays named ENGINE/TENSOR, one row a case, got {key!r}")
        inputs.setdefault(engine, {})[tensor] = values
    return inputs
