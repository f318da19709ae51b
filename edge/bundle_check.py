"""Whether a bundle's manifest makes sense, and whether its engines are what it says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from edge.errors import BundleError
from edge.streams import SECOND, STREAMS

if TYPE_CHECKING:
    from edge.bundle import EngineSpec, FuseSpec

MOTION_CHANNELS: Final = 12
RANGE_CHANNELS: Final = 2
PRECISIONS: Final = ("int8", "fp16", "fp32")
SCORES: Final = ("uncertainty", "disagreement", "novelty")
Tensors = Mapping[str, NDArray[Any]]
_Check = tuple[str, Callable[[Any], bool]]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e9


def _whole(low: int, high: int) -> _Check:
    check = lambda value: type(value) is int and low <= value <= high  # noqa: E731
    return f"a whole number of {low}..{high}", check


def _between(low: float, high: float) -> _Check:
    return f"a number of {low:g}..{high:g}", lambda value: _is_number(value) and low <= value <= high


def _one_of(*choices: str) -> _Check:
    return f"one of {', '.join(choices)}", lambda value: value in choices


_NAME: Final[_Check] = ("a tensor name", lambda value: isinstance(value, str) and bool(value))
_NUMBER: Final[_Check] = ("a number", _is_number)
_THREE: Final[_Check] = (
    "three numbers",
    lambda value: isinstance(value, list) and len(value) == 3 and all(map(_is_number, value)),
)
_THREE_POSITIVE: Final[_Check] = ("three numbers above 0", lambda value: _THREE[1](value) and min(value) > 0)

# What an encoder's input may say, by modality; those of REQUIRED_KEYS must be there.
INPUT_KEYS: Final[dict[str, dict[str, _Check]]] = {
    "camera": {
        "name": _NAME,
        "dtype": _one_of("uint8", "float32"),
        "layout": _one_of("NHWC", "NCHW"),
        "color": _one_of("BGR", "RGB"),
        "width_px": _whole(1, 8192),
        "height_px": _whole(1, 8192),
        "scale": _NUMBER,
        "mean": _THREE,
        "std": _THREE_POSITIVE,
    },
    "audio": {
        "name": _NAME,
        "dtype": _one_of("float32"),
        "rate_hz": _whole(1_000, 384_000),
        "samples": _whole(1, 10_000_000),
        "hop": _whole(1, 10_000_000),
    },
    "motion": {
        "name": _NAME,
        "dtype": _one_of("float32"),
        "channels": _whole(MOTION_CHANNELS, MOTION_CHANNELS),
        "steps": _whole(1, 10_000),
        "window_ns": _whole(1_000_000, 1_000_000_000),
    },
    "lidar": {
        "name": _NAME,
        "dtype": _one_of("float32"),
        "channels": _whole(RANGE_CHANNELS, RANGE_CHANNELS),
        "rows": _whole(1, 1024),
        "columns": _whole(1, 8192),
        "azimuth_deg": _between(1, 360),
        "highest_deg": _between(-80, 80),
        "lowest_deg": _between(-80, 80),
    },
}
REQUIRED_KEYS: Final[dict[str, tuple[str, ...]]] = {
    "camera": ("name", "dtype", "layout", "width_px", "height_px"),
    "audio": ("name", "dtype", "rate_hz", "samples"),
    "motion": ("name", "dtype", "steps", "window_ns"),
    "lidar": ("name", "dtype", "rows", "columns", "azimuth_deg", "highest_deg", "lowest_deg"),
}


def check_input(modality: str, spec: Mapping[str, Any]) -> None:
    """Refuse an encoder's input that leaves something out, or says what this version does not know.

    Raises:
        ValueError: what, expected, got.
    """
    keys = INPUT_KEYS[modality]
    for key in REQUIRED_KEYS[modality]:
        if key not in spec:
            raise ValueError(f"{modality} input: expected the key {key!r}, got {', '.join(map(repr, spec)) or 'none'}")
    for key, value in spec.items():
        if key not in keys:
            raise ValueError(f"{modality} input: expected keys of {', '.join(keys)}, got {key!r}")
        wanted, holds = keys[key]
        if not holds(value):
            raise ValueError(f"{modality} input: expected {key} to be {wanted}, got {str(value)[:80]!r}")
    if spec.get("dtype") == "uint8" and spec.keys() & {"scale", "mean", "std"}:
        raise ValueError(f"{modality} input: expected no scale, mean or std with uint8, got {sorted(spec)}")
    if spec.get("hop", 1) > spec.get("samples", 1):
        raise ValueError(f"{modality} input: expected a hop of at most {spec['samples']} samples, got {spec['hop']}")
    if spec.get("lowest_deg", -1) >= spec.get("highest_deg", 0):
        lowest, highest = spec["lowest_deg"], spec["highest_deg"]
        raise ValueError(f"{modality} input: expected lowest_deg below highest_deg, got {lowest} and {highest}")


def check_encoder(modality: str, spec: EngineSpec, inputs: Tensors, outputs: Tensors) -> None:
    """Refuse an encoder whose tensors are not what its manifest says, or that has an input which nobody feeds.

    Raises:
        BundleError: what, expected, got.
    """
    _check_precision(spec.path, spec.precision)
    name, dtype = spec.input["name"], spec.input["dtype"]
    _check_names(spec.path, "inputs", [name], inputs)
    _check_names(spec.path, "outputs", spec.outputs.values(), outputs)
    shape = inputs[name].shape
    wanted = _input_shape(modality, spec.input, shape)
    if (shape, inputs[name].dtype) != (wanted, np.dtype(dtype)):
        raise BundleError(f"{spec.path}: expected input {name} {dtype}{wanted}, got {inputs[name].dtype}{shape}")
    _check_fed(spec.path, inputs, {name, *spec.state, *spec.constants})
    if modality == "audio":
        _check_sound(spec)


def check_fuse(spec: FuseSpec, inputs: Tensors, outputs: Tensors) -> None:
    """Refuse a fusion engine whose tensors are not what its manifest says.

    Raises:
        BundleError: what, expected, got.
    """
    _check_precision(spec.path, spec.precision)
    _check_names(spec.path, "inputs", [*spec.inputs, spec.presence], inputs)
    _check_names(spec.path, "outputs", spec.outputs.values(), outputs)
    wanted = (1, len(spec.inputs))
    if inputs[spec.presence].shape != wanted:
        raise BundleError(f"{spec.path}: expected {spec.presence} {wanted}, got {inputs[spec.presence].shape}")
    if "scores" in spec.outputs and outputs[spec.outputs["scores"]].size != len(SCORES):
        raise BundleError(f"{spec.path}: expected scores {SCORES}, got {outputs[spec.outputs['scores']].shape}")
    _check_fed(spec.path, inputs, {*spec.inputs, spec.presence, *spec.state})


def _check_precision(path: Path, precision: str) -> None:
    if precision not in PRECISIONS:
        raise BundleError(f"{path}: expected a precision of {', '.join(PRECISIONS)}, got {precision[:40]!r}")


def _check_sound(spec: EngineSpec) -> None:
    """Refuse a model that wants more sound at once than a frame has."""
    window_ns = next(stream.window_ns for stream in STREAMS if stream.name == "audio")
    sound_ns = spec.input["samples"] * SECOND // spec.input["rate_hz"]
    if "hop" not in spec.input and sound_ns > window_ns:
        limit_s, sound_s = window_ns / SECOND, sound_ns / SECOND
        raise BundleError(f"{spec.path}: expected at most {limit_s:g} s of sound (or a hop), got {sound_s:g} s")


def _check_names(path: Path, what: str, wanted: Iterable[str], tensors: Tensors) -> None:
    missing = sorted(set(wanted) - set(tensors))
    if missing:
        raise BundleError(f"{path}: expected {what} {', '.join(missing)}, got {', '.join(tensors)}")


def _check_fed(path: Path, inputs: Tensors, fed: set[str]) -> None:
    unfed = sorted(set(inputs) - fed)
    if unfed:
        raise BundleError(
            f"{path}: expected each input to be fed (state, constants), got nothing for {', '.join(unfed)}"
        )


def _input_shape(modality: str, spec: Mapping[str, Any], shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that an input of this description has; for sound any that holds its samples in one row."""
    if modality == "camera":
        height, width = spec["height_px"], spec["width_px"]
        return (1, height, width, 3) if spec["layout"] == "NHWC" else (1, 3, height, width)
    if modality == "audio":
        return shape if max(shape, default=0) == np.prod(shape) == spec["samples"] else (1, spec["samples"])
    if modality == "lidar":
        return (1, RANGE_CHANNELS, spec["rows"], spec["columns"])
    return (1, MOTION_CHANNELS, spec["steps"])
