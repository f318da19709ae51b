"""Activation ranges: how each tensor of a float graph was distributed over representative inputs, as one file.

One ranges file serves every lowering: it holds histograms, not scales. It belongs to one model, by the SHA-256 of its
canonical form, and is named by its own content; files of several vehicles merge into the one that a single vehicle
with all their drives would have written.
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

from calibration.canonical import canonical, canonical_id
from calibration.histogram import Histogram
from edge.errors import ConfigError

FORMAT = 2


@dataclass(frozen=True, slots=True)
class Ranges:
    """Histograms by tensor name, over `samples` inputs of the model whose canonical SHA-256 is `model_sha256`."""

    model_sha256: str
    samples: int
    tensors: Mapping[str, Histogram]

    @property
    def id(self) -> str:
        """SHA-256 of the canonical content: two equal calibrations have one name."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    @property
    def bounds(self) -> dict[str, tuple[float, float]]:
        """Lowest and highest value by tensor name."""
        return {name: (seen.low, seen.high) for name, seen in self.tensors.items()}

    def to_json(self) -> str:
        """Canonical text: sorted keys, a tensor a line, shortest round-trip floats, trailing newline."""
        head = {"format": FORMAT, "model_sha256": self.model_sha256, "samples": self.samples}
        lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in head.items()]
        tensors = [f" {json.dumps(name)}: {_text(self.tensors[name])}" for name in sorted(self.tensors)]
        lines.append('"tensors": {\n' + ",\n".join(tensors) + "\n}")
        return "{" + ",\n".join(lines) + "}\n"

    @staticmethod
    def from_json(text: str) -> Ranges:
        """Reads what to_json wrote.

        Raises:
            ConfigError: not a ranges file, of another format, or a histogram contradicts itself.
        """
        try:
            content = json.loads(text)
            if content["format"] != FORMAT:
                raise ConfigError(f"ranges: expected format {FORMAT}, got {content['format']!r}: collect them again")
            tensors = {str(name): _histogram(entry) for name, entry in content["tensors"].items()}
            read = Ranges(str(content["model_sha256"]), int(content["samples"]), tensors)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"ranges: not a ranges file ({type(error).__name__}: {error})") from error
        for name, seen in read.tensors.items():
            seen.check(name)
        return read

    def merged(self, other: Ranges) -> Ranges:
        """What both saw; order does not matter.

        Raises:
            ConfigError: they belong to different models.
        """
        other.belong_to(self.model_sha256)
        tensors = dict(self.tensors)
        for name, seen in other.tensors.items():
            tensors[name] = tensors[name].merged(seen) if name in tensors else seen
        return Ranges(self.model_sha256, self.samples + other.samples, tensors)

    def belong_to(self, model_sha256: str) -> None:
        """Refuse ranges of another model.

        Raises:
            ConfigError: the message names both.
        """
        if self.model_sha256 != model_sha256:
            raise ConfigError(f"ranges: expected those of the model {model_sha256[:12]}, got {self.model_sha256[:12]}")


def collect(model: bytes, inputs: Iterable[Mapping[str, NDArray[np.generic]]]) -> Ranges:
    """Runs a float model over inputs and counts the values of every float tensor, inputs included.

    Args:
        model: the ONNX file's bytes.
        inputs: feeds by input name, each one a sample of batch 1.

    Raises:
        ConfigError: the model has no canonical form, there were no inputs, or a value was not finite.
    """
    graph = canonical(onnx.load_from_string(model))
    digest = canonical_id(graph)
    session, inner = _observed(graph)
    names = [port.name for port in session.get_inputs() if port.type == "tensor(float)"] + inner
    tensors: dict[str, Histogram] = {}
    count = 0
    for feed in inputs:
        given = [feed[name] for name in names if name in feed]
        for name, value in zip(names, given + session.run(inner, dict(feed))):
            if value.size:
                seen = Histogram.of(value)
                tensors[name] = tensors[name].merged(seen) if name in tensors else seen
        count += 1
    if count == 0:
        raise ConfigError("ranges: expected at least one input, got none")
    return Ranges(digest, count, tensors)


def read_ranges(path: Path) -> Ranges:
    """The ranges file at `path`.

    Raises:
        ConfigError: it is none.
    """
    try:
        return Ranges.from_json(path.read_text())
    except (ConfigError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from None


def write_ranges(path: Path, ranges: Ranges) -> str:
    """Writes the file and returns its id."""
    path.write_text(ranges.to_json())
    return ranges.id


def _text(seen: Histogram) -> str:
    entry = [seen.low, seen.high, seen.zeros, seen.shift, seen.first, list(seen.counts)]
    return json.dumps(entry, separators=(",", ":"))


def _histogram(entry: list[object]) -> Histogram:
    low, high, zeros, shift, first, counts = entry
    whole = (zeros, shift, first, *counts) if isinstance(counts, list) else (None,)
    if not all(type(number) is int for number in whole):
        raise TypeError("expected whole numbers")
    return Histogram(float(low), float(high), zeros, shift, first, tuple(counts))  # type: ignore[arg-type]


def _observed(model: onnx.ModelProto) -> tuple[ort.InferenceSession, list[str]]:
    """A session whose outputs are all float tensors of the graph, unfused, and their names (inputs excluded)."""
    graph = onnx.shape_inference.infer_shapes(model)
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
