"""What int8 costs a graph in accuracy, as a whole and layer by layer: SQNR of its outputs over representative inputs.

SQNR = 10 log10(sum of float² / sum of (float - int8)²), in dB, over all samples and elements of a tensor. A graph's is
that of its worst tensor. Where an output comes from a decision (top k, a comparison), which a small change may tip, the
last products before the decision are compared instead.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

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


class Apart(TypedDict):
    """How far two runs lie apart in one tensor; a quantum is its largest magnitude in float over 127."""

    largest_quanta: float
    within_one_quantum: float  # share of the elements
    same_top1: float  # share of the samples whose largest element is the same one


class Parity(Apart):
    """Of the two graphs as they are defined, and by the kernels that run here."""

    kernels: Apart


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

    def parity(self, floats: Collection[str] = ()) -> dict[str, Parity]:
        """How far the trt and x86 graphs lie apart, by compared tensor.

        Both are computed in float, operator by operator, so that only what the graphs say can differ; and x86 once more
        by ONNX Runtime's int8 kernels, which round ties their own way.
        """
        trt, x86 = (self._run(self.lowered(target, floats), fused=False) for target in ("trt", "x86"))
        kernels = self._run(self.lowered("x86", floats))
        return {
            name: Parity(
                **_apart(self._float[name], trt[name], x86[name]),
                kernels=_apart(self._float[name], trt[name], kernels[name]),
            )
            for name in self.probes
        }

    def _run(self, model: onnx.ModelProto, fused: bool = True) -> dict[str, list[NDArray[Any]]]:
        """The compared tensors of every input."""
        session = open_session(model, self.probes, fused)
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


def open_session(model: onnx.ModelProto, also: Collection[str] = (), fused: bool = True) -> ort.InferenceSession:
    """A session on one CPU thread, with further tensors as outputs; `fused` False computes operator by operator."""
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
    if not fused:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(canonical_bytes(opened), options, providers=["CPUExecutionProvider"])


def _sqnr_db(exact: Sequence[NDArray[Any]], rounded: Sequence[NDArray[Any]]) -> float:
    signal = sum(float(np.square(value, dtype=np.float64).sum()) for value in exact)
    noise = sum(float(np.square(a - b, dtype=np.float64).sum()) for a, b in zip(exact, rounded))
    return EXACT_DB if noise == 0.0 else float(10 * np.log10(max(signal, 1e-300) / noise))


def _apart(exact: Sequence[NDArray[Any]], one: Sequence[NDArray[Any]], other: Sequence[NDArray[Any]]) -> Apart:
    quantum = max(float(np.abs(np.stack(exact)).max()) / 127, 1e-30)
    a, b = (np.stack(run).reshape(len(exact), -1) for run in (one, other))
    quanta = np.abs(a - b) / quantum
    return {
        "largest_quanta": float(quanta.max()),
        "within_one_quantum": float((quanta <= 1.0).mean()),
        "same_top1": float((a.argmax(1) == b.argmax(1)).mean()),
    }
