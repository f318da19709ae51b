"""What int8 costs a graph in accuracy, as a whole and layer by layer: SQNR of its outputs over representative inputs.

SQNR = 10 log10(sum of float² / sum of (float - int8)²), in dB, over all samples and elements of a tensor. A graph's is
that of its worst tensor. Where an output comes from a decision (top k, a comparison), which a small change may tip, the
last products before the decision are compared instead.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from calibration.canonical import canonical, canonical_bytes
from calibration.ranges import Ranges
from edge.errors import ConfigError
from export.layout import WEIGHTED
from export.lowerings import int8_nodes, lower_to

Feed = Mapping[str, NDArray[Any]]
DECISIONS = (
    "ArgMax",
    "ArgMin",
    "Equal",
    "Greater",
    "GreaterOrEqual",
    "Less",
    "LessOrEqual",
    "NonMaxSuppression",
    "TopK",
)
EXACT_DB = 200.0  # said where nothing differs


@dataclass(frozen=True, slots=True)
class Layer:
    """One int8 layer: the graph's SQNR with only it in int8, and with all but it."""

    node: str
    operator: str
    only_db: float
    without_db: float


class Meter:
    """Measures int8 graphs of one float graph against it.

    Args:
        model: float.
        ranges: of the model.
        inputs: feeds by input name, batch 1; they are kept.
        scales: of `lower_to`.

    Raises:
        ConfigError: the model can't be lowered, or there are no inputs.
    """

    def __init__(self, model: onnx.ModelProto, ranges: Ranges, inputs: Sequence[Feed], scales: str = "minmax") -> None:
        if not inputs:
            raise ConfigError("inputs: expected at least one, got none")
        self.model, self.ranges, self.inputs = canonical(model), ranges, inputs
        self._scales = scales
        self.probes = probes(self.model)
        self._float = self._run(self.model)

    def lowered(self, target: str = "x86", floats: Collection[str] = ()) -> onnx.ModelProto:
        """One lowering."""
        return lower_to(self.model, self.ranges, target, floats, self._scales)

    def sqnr_db(self, target: str = "x86", floats: Collection[str] = ()) -> dict[str, float]:
        """SQNR by compared tensor of one lowering."""
        lowered = self._run(self.lowered(target, floats))
        return {name: _sqnr_db(self._float[name], lowered[name]) for name in self.probes}

    def worst_db(self, target: str = "x86", floats: Collection[str] = ()) -> float:
        """SQNR of the worst tensor."""
        return min(self.sqnr_db(target, floats).values())

    def layers(self, target: str = "x86", floats: Collection[str] = ()) -> list[Layer]:
        """Each int8 layer's share, in graph order."""
        kinds = {node.name: node.op_type for node in self.model.graph.node if node.op_type in WEIGHTED}
        names = [name for name in int8_nodes(self.model, floats) if name in kinds]
        return [
            Layer(
                name,
                kinds[name],
                self.worst_db(target, {*floats, *names} - {name}),
                self.worst_db(target, {*floats, name}),
            )
            for name in names
        ]

    def parity(self, one: str = "x86", other: str = "trt", floats: Collection[str] = ()) -> dict[str, dict[str, float]]:
        """How far two lowerings lie apart, by compared tensor: in its quanta, and how often its largest element agrees.

        A quantum is the tensor's largest magnitude in float over 127.
        """
        first, second = (self._run(self.lowered(target, floats)) for target in (one, other))
        found = {}
        for name in self.probes:
            a, b = (np.stack(run[name]).reshape(len(self.inputs), -1) for run in (first, second))
            quantum = max(float(np.abs(np.stack(self._float[name])).max()) / 127, 1e-30)
            apart = np.abs(a - b) / quantum
            found[name] = {
                "largest_quanta": float(apart.max()),
                "within_one_quantum": float((apart <= 1.0).mean()),
                "same_top1": float((a.argmax(1) == b.argmax(1)).mean()),
            }
        return found

    def _run(self, model: onnx.ModelProto) -> dict[str, list[NDArray[Any]]]:
        """The compared tensors of every input."""
        session = open_session(model, self.probes)
        found = [session.run(list(self.probes), dict(feed)) for feed in self.inputs]
        return {name: [values[i] for values in found] for i, name in enumerate(self.probes)}


def probes(model: onnx.ModelProto) -> tuple[str, ...]:
    """Names of the tensors in which int8 and float are compared."""
    graph = model.graph
    weights = {tensor.name for tensor in graph.initializer}
    products: dict[str, frozenset[str]] = {}  # tensor -> the last weighted results that it comes from
    decided: set[str] = set()
    for node in graph.node:
        given = [name for name in node.input if name and name not in weights]
        last = frozenset().union(*(products.get(name, frozenset()) for name in given))
        tips = (node.op_type in DECISIONS and bool(last)) or any(name in decided for name in given)
        for name in node.output:
            products[name] = frozenset([name]) if node.op_type in WEIGHTED else last
            if tips:
                decided.add(name)
    found: dict[str, None] = {}
    for value in graph.output:
        found |= dict.fromkeys(sorted(products[value.name]) if value.name in decided else [value.name])
    return tuple(found)


def open_session(model: onnx.ModelProto, also: Collection[str] = ()) -> ort.InferenceSession:
    """A session on one CPU thread, with further tensors as outputs."""
    opened = onnx.ModelProto()
    opened.CopyFrom(model)
    there = {value.name for value in opened.graph.output}
    for name in also:
        if name not in there:
            opened.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(canonical_bytes(opened), options, providers=["CPUExecutionProvider"])


def _sqnr_db(exact: Sequence[NDArray[Any]], rounded: Sequence[NDArray[Any]]) -> float:
    signal = sum(float(np.square(value, dtype=np.float64).sum()) for value in exact)
    noise = sum(float(np.square(a - b, dtype=np.float64).sum()) for a, b in zip(exact, rounded))
    return EXACT_DB if noise == 0.0 else float(10 * np.log10(max(signal, 1e-300) / noise))
