"""How a foreign model is to be used: what its tensors mean, in a small JSON file that a person writes.

The known ones lie in `edge/mappings/`; docs/bundles.md says what each key means.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final

from edge.bundle import parse_json
from edge.bundle_check import INPUT_KEYS, check_input
from edge.errors import ConfigError
from edge.heads import check_thresholds, parse_heads

KNOWN: Final = Path(__file__).parent / "mappings"
ACTIVATIONS: Final = {"sigmoid": "Sigmoid", "softmax": "Softmax"}
_MAX_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class ModelMapping:
    """One model's mapping.

    Attributes:
        name, version: of the bundle.
        modality: camera, audio, motion or lidar.
        input: tensor name and preprocessing, as in a bundle's manifest.
        outputs: role -> tensor name.
        heads: head -> labels, in the order of the tensor, or an object of its kind and labels.
        thresholds: head -> probability from which something counts.
        decoder: how detections are read off the output; "" where the graph gives rows.
        state: input tensor -> output tensor that becomes it at the next step.
        constants: input tensor -> value.
        dims: name of a dynamic dimension -> its size; those of the input itself need none.
        activations: head -> sigmoid or softmax, for a model whose output is not yet a probability.
        origin: where the model comes from, and its licence.
    """

    name: str
    modality: str
    input: dict[str, Any]
    outputs: dict[str, str]
    heads: dict[str, Any] = field(default_factory=dict)
    thresholds: dict[str, Any] = field(default_factory=dict)
    decoder: str = ""
    state: dict[str, str] = field(default_factory=dict)
    constants: dict[str, Any] = field(default_factory=dict)
    dims: dict[str, int] = field(default_factory=dict)
    activations: dict[str, str] = field(default_factory=dict)
    origin: str = ""
    version: str = "1"


def known() -> list[str]:
    """Names of the mappings that come with roadfuse."""
    return sorted(path.stem for path in KNOWN.glob("*.json"))


def read(path: Path) -> ModelMapping:
    """Read and check a mapping file.

    Raises:
        ConfigError: not JSON, an unknown or missing key, a value of the wrong type or out of range.
    """
    values = read_json(path, _MAX_BYTES)
    try:
        return _checked(values, path.stem)
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from None


def read_json(path: Path, most: int) -> Any:
    """What a JSON file of at most `most` bytes says: what could be written again, as a manifest.

    Raises:
        ConfigError: no such file, too large, not strict JSON, or a number or a text that JSON has no form for.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(most + 1)  # of a pipe or a device nobody knows the size
        if len(raw) > most:
            raise ConfigError(f"{path}: expected at most {most} bytes, got more")
        values = parse_json(raw)
        _check_writable(values)
    except FileNotFoundError:
        raise ConfigError(f"{path}: expected a mapping file, got nothing") from None
    except IsADirectoryError:
        raise ConfigError(f"{path}: expected a mapping file, got a folder") from None
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: expected JSON, got {error}") from None
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from None
    return values


def _check_writable(values: Any) -> None:
    try:
        json.dumps(values, ensure_ascii=False).encode()
    except ValueError as error:  # half of a surrogate pair
        raise ValueError(f"expected text of UTF-8, got: {error}") from None


def _checked(values: Any, default_name: str) -> ModelMapping:
    if not isinstance(values, dict):
        raise ValueError(f"expected an object, got {type(values).__name__}")
    keys = {field.name: str(field.type) for field in fields(ModelMapping)}
    for key, value in values.items():
        if key not in keys:
            raise ValueError(f"expected keys of {', '.join(keys)}, got {key!r}")
        _check_type(key, keys[key], value)
    for key in ("modality", "input", "outputs"):
        if key not in values:
            raise ValueError(f"expected the key {key!r}, got {', '.join(map(repr, values)) or 'none'}")
    mapping = ModelMapping(**{"name": default_name, **values})
    if mapping.modality not in INPUT_KEYS:
        raise ValueError(f"expected a modality of {', '.join(INPUT_KEYS)}, got {mapping.modality!r}")
    check_input(mapping.modality, mapping.input)
    roles = set(mapping.outputs)
    heads = parse_heads(mapping.heads, roles, roles if mapping.modality == "camera" else ())
    check_thresholds(heads, mapping.thresholds)
    for head, kind in mapping.activations.items():
        if head not in mapping.heads or kind not in ACTIVATIONS:
            raise ValueError(
                f"expected activations of heads ({', '.join(mapping.heads)}) to be {' or '.join(ACTIVATIONS)}, "
                f"got {head!r}: {kind!r}"
            )
    return mapping


def _check_type(key: str, wanted: str, value: Any) -> None:
    """Whether the value is what the field's annotation says: str, or dict of str to str, int or anything."""
    if wanted == "str":
        if not isinstance(value, str):
            raise ValueError(f"expected {key} to be text, got {str(value)[:80]!r}")
        return
    if not isinstance(value, Mapping):
        raise ValueError(f"expected {key} to be an object, got {str(value)[:80]!r}")
    of = wanted.removeprefix("dict[str, ").removesuffix("]")
    for name, inner in value.items():
        holds = {
            "str": isinstance(inner, str),
            "int": type(inner) is int and inner > 0,
        }.get(of, True)
        if not holds:
            raise ValueError(f"expected {key} {name} to be {of}, got {str(inner)[:80]!r}")
