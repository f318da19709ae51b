"""Activation ranges: what each tensor of a float graph reached over representative inputs, as a content-hashed file.

One ranges file serves every lowering (uint8 for x86, int8 with zero point 0 for TensorRT): it holds values, not scales.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from edge.errors import ConfigError

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Ranges:
    """Lowest and highest value by tensor name, over `samples` inputs of the model whose digest is `model_sha256`."""

    model_sha256: str
    samples: int
    bounds: Mapping[str, tuple[float, float]]

    @property
    def id(self) -> str:
        """SHA-256 of the canonical content: two equal calibrations have one name."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def to_json(self) -> str:
        """Canonical text: sorted keys, shortest round-trip floats, trailing newline."""
        content = {
            "format": FORMAT,
            "model_sha256": self.model_sha256,
            "samples": self.samples,
            "bounds": {name: [low, high] for name, (low, high) in self.bounds.items()},
        }
        return json.dumps(content, indent=1, sort_keys=True) + "\n"

    @staticmethod
    def from_json(text: str) -> Ranges:
        """Reads what to_json wrote.

        Raises:
            ConfigError: not a ranges file, or a bound is not a finite ascending pair.
        """
        try:
            content = json.loads(text)
            if content["format"] != FORMAT:
                raise ConfigError(f"ranges: expected format {FORMAT}, got {content['format']!r}")
            bounds = {str(name): (float(low), float(high)) for name, (low, high) in content["bounds"].items()}
            read = Ranges(str(content["model_sha256"]), int(content["samples"]), bounds)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"ranges: not a ranges file ({type(error).__name__}: {error})") from error
        for name, (low, high) in read.bounds.items():
            if not (np.isfinite(low) and np.isfinite(high) and low <= high):
                raise ConfigError(f"ranges: {name}: expected finite low <= high, got {low} and {high}")
        return read

    def merged(self, other: Ranges) -> Ranges:
        """The union of both; order does not matter.

        Raises:
            ConfigError: they belong to different models.
        """
        if self.model_sha256 != other.model_sha256:
            raise ConfigError(f"ranges: expected the model {self.model_sha256[:12]}, got {other.model_sha256[:12]}")
        bounds = dict(self.bounds)
        for name, (low, high) in other.bounds.items():
            before = bounds.get(name, (low, high))
            bounds[name] = (min(before[0], low), max(before[1], high))
        return Ranges(self.model_sha256, self.samples + other.samples, bounds)


def collect(model: bytes, inputs: Iterable[Mapping[str, NDArray[np.generic]]]) -> Ranges:
    """Runs a float model over inputs and notes the range of every float tensor, inputs included.

    Args:
        model: the ONNX file's bytes.
        inputs: feeds by input name, each one a sample of batch 1.

    Raises:
        ConfigError: there were no inputs.
    """
    session, inner = _observed(model)
    names = [port.name for port in session.get_inputs() if port.type == "tensor(float)"] + inner
    low = np.full(len(names), np.inf)
    high = np.full(len(names), -np.inf)
    count = 0
    for feed in inputs:
        values = [feed[name] for name in names if name in feed] + session.run(inner, dict(feed))
        low = np.minimum(low, [value.min() for value in values])
        high = np.maximum(high, [value.max() for value in values])
        count += 1
    if count == 0:
        raise ConfigError("ranges: expected at least one input, got none")
    bounds = {name: (float(a), float(b)) for name, a, b in zip(names, low, high)}
    return Ranges(hashlib.sha256(model).hexdigest(), count, bounds)


def read_ranges(path: Path) -> Ranges:
    """The ranges file at `path`."""
    return Ranges.from_json(path.read_text())


def write_ranges(path: Path, ranges: Ranges) -> str:
    """Writes the file and returns its id."""
    path.write_text(ranges.to_json())
    return ranges.id


def _observed(model: bytes) -> tuple[ort.InferenceSession, list[str]]:
    """A session whose outputs are all float tensors of the graph, unfused, and their names (inputs excluded)."""
    graph = onnx.shape_inference.infer_shapes(onnx.load_from_string(model))
    kinds = {value.name: value.type.tensor_type.elem_type for value in graph.graph.value_info}
    outputs = {value.name: value.type.tensor_type.elem_type for value in graph.graph.output}
    names = [name for node in graph.graph.node for name in node.output if name]
    seen = [name for name in names if {**kinds, **outputs}.get(name) == onnx.TensorProto.FLOAT]
    for name in seen:
        if name not in outputs:
            graph.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session, seen
