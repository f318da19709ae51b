"""Which nodes of a float graph become int8, and which tensors between them are therefore stored as int8.

Weights decide: Conv, Gemm and MatMul multiply in int8. A Conv also stores its result (behind its ReLU) as int8, because
ONNX Runtime has no other int8 Conv; Gemm and MatMul give floats, and only what they take is rounded. Add, Concat and
what merely moves values stay int8 between int8 neighbours. All else is float: softmax, norms, logs, sigmoids.

A Conv stays float where nothing int8 follows: there it makes logits or sizes, whose channels are too unlike for the one
scale of a tensor. A depthwise Conv stays float: int8 loses to float on CPUs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

WEIGHTED = ("Conv", "Gemm", "MatMul")
JOINS = ("Add", "Concat")
MOVERS = ("Flatten", "MaxPool", "Reshape", "Resize", "Slice", "Squeeze", "Transpose", "Unsqueeze")
# On the way from one weighted node to the next, these keep the value's kind: one scale a tensor serves it.
CARRIERS = (
    *JOINS, *MOVERS, "Relu", "LeakyRelu", "PRelu", "Clip", "HardSwish", "HardSigmoid", "Sigmoid", "Gelu", "Erf", "Tanh",
    "Mul", "Div", "Sub", "Split", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "ReduceMax",
    "ReduceSum", "Softmax", "LayerNormalization", "BatchNormalization", "Expand", "Gather", "Cast", "Pad",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Pixels:
    """A float picture that is made of bytes: `source` (uint8) times `scale`."""

    source: str
    scale: float


@dataclass(frozen=True, slots=True)
class Bias:
    """What a node adds to each channel: the weight `name`, taken by the node `adder`."""

    name: str
    adder: str
    values: NDArray[np.float32]


class Wiring:
    """Who makes and who takes each tensor of a graph."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.graph = graph
        self.weights = {tensor.name: tensor for tensor in graph.initializer}
        self.outputs = {value.name for value in graph.output}
        self.maker = {name: node for node in graph.node for name in node.output if name}
        self.takers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in graph.node:
            for name in dict.fromkeys(node.input):
                self.takers[name].append(node)

    def values(self, name: str) -> NDArray[np.generic] | None:
        """A weight's values; None where the name is no weight."""
        return numpy_helper.to_array(self.weights[name]) if name in self.weights else None

    def activations(self, node: onnx.NodeProto) -> list[str]:
        """The inputs of a node that int8 would store: no weights, and of those that take settings only the first."""
        names = node.input[:1] if node.op_type in MOVERS else node.input
        return [name for name in names if name and name not in self.weights]

    def stored(self, node: onnx.NodeProto) -> str:
        """The tensor that holds a node's result: behind its ReLU where that is all that follows."""
        after = self.takers[node.output[0]]
        follows = len(after) == 1 and after[0].op_type == "Relu" and node.op_type not in MOVERS
        return str(after[0].output[0] if follows and node.output[0] not in self.outputs else node.output[0])

    def bias(self, node: onnx.NodeProto) -> Bias | None:
        """The bias of a weighted node: its third input; of a MatMul the weight that an Add behind it adds."""
        adder, names = node, node.input[2:3]
        if node.op_type == "MatMul":
            after = self.takers[node.output[0]]
            if len(after) != 1 or after[0].op_type != "Add" or node.output[0] in self.outputs:
                return None
            adder, names = after[0], [name for name in after[0].input if name != node.output[0]]
        values = self.values(names[0]) if names else None
        if values is None or values.shape != self._channels(node):
            return None
        return Bias(names[0], adder.name, values.astype(np.float32))

    def _channels(self, node: onnx.NodeProto) -> tuple[int, ...]:
        shape = self.weights[node.input[1]].dims
        transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
        return (shape[0] if node.op_type == "Conv" or transposed else shape[1],)

    def pixels(self, name: str) -> Pixels | None:
        """What a float tensor is made of, if it is Cast(bytes), or that times or over a constant."""
        node, scale = self.maker.get(name), 1.0
        if node is not None and node.op_type in ("Mul", "Div"):
            constant = next((i for i, given in enumerate(node.input) if given in self.weights), None)
            factor = None if constant is None else self.values(node.input[constant])
            if factor is None or factor.size != 1 or (node.op_type == "Div" and constant == 0):
                return None
            scale = float(factor.item()) if node.op_type == "Mul" else 1.0 / float(factor.item())
            node = self.maker.get(node.input[1 - (constant or 0)])
        if node is None or node.op_type != "Cast" or scale <= 0.0:
            return None
        source = node.input[0]
        origin = source
        while origin in self.maker and self.maker[origin].op_type in ("Transpose", "Reshape", "Flatten"):
            origin = self.maker[origin].input[0]
        port = next((value for value in self.graph.input if value.name == origin), None)
        if port is None or port.type.tensor_type.elem_type != onnx.TensorProto.UINT8:
            return None
        return Pixels(source, scale)


@dataclass(frozen=True, slots=True)
class Layout:
    """What is int8.

    Attributes:
        nodes: names, in graph order.
        stored: tensors that int8 nodes make; whoever takes one takes its int8 value.
        read: tensors that float nodes make and int8 nodes take; float nodes go on taking the float value.
        like: stored tensor -> the one whose scale it shares, for what is only moved.
    """

    nodes: tuple[str, ...]
    stored: tuple[str, ...]
    read: tuple[str, ...]
    like: Mapping[str, str]


def layout(wiring: Wiring, floats: Collection[str] = ()) -> Layout:
    """The int8 part of a canonical graph.

    Args:
        floats: names of nodes to keep float, beyond the rules above.
    """
    leading = _leading(wiring) - wiring.outputs
    nodes: list[str] = []
    stored: dict[str, None] = {}
    read: dict[str, None] = {}
    like: dict[str, str] = {}
    for node in wiring.graph.node:
        inputs, held = wiring.activations(node), wiring.stored(node)
        if node.name in floats:
            continue
        if node.op_type in (*JOINS, *MOVERS):
            between = bool(inputs) and all(name in stored for name in inputs) and held in leading
            if not between or not _keeps(wiring, node):
                continue
            if node.op_type in MOVERS:
                like[held] = like.get(inputs[0], inputs[0])
        elif not _multiplies(wiring, node) or (node.op_type == "Conv" and held not in leading):
            continue
        nodes.append(node.name)
        read |= dict.fromkeys(name for name in inputs if name not in stored)
        if node.op_type not in ("Gemm", "MatMul"):
            stored[held] = None
    return Layout(tuple(nodes), tuple(stored), tuple(read), like)


def _leading(wiring: Wiring) -> set[str]:
    """Tensors from which carriers lead to a weighted node."""
    found: set[str] = set()
    for node in reversed(wiring.graph.node):
        if node.op_type in WEIGHTED or (node.op_type in CARRIERS and any(name in found for name in node.output)):
            found.update(node.input)
    return found


def _keeps(wiring: Wiring, node: onnx.NodeProto) -> bool:
    """Whether a join takes activations only, and a mover moves values unchanged (a Resize does so to the nearest)."""
    if node.op_type in JOINS:
        return not any(name in wiring.weights for name in node.input)
    modes = [attribute.s for attribute in node.attribute if attribute.name == "mode"]
    return node.op_type != "Resize" or modes in ([], [b"nearest"])


def _multiplies(wiring: Wiring, node: onnx.NodeProto) -> bool:
    """Whether a node is a weighted one of the form that both runtimes multiply in int8."""
    if node.op_type not in WEIGHTED:
        return False
    given = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
    first, second = node.input[0], node.input[1]
    weight = wiring.values(second)
    if first in wiring.weights:
        return False
    if node.op_type == "Conv":
        return weight is not None and (given.get("group", 1) == 1 or weight.shape[1] > 1) and _biased(wiring, node)
    if node.op_type == "Gemm":
        plain = given.get("alpha", 1.0) == given.get("beta", 1.0) == 1.0 and not given.get("transA", 0)
        return plain and weight is not None and _biased(wiring, node)
    return weight is None or weight.ndim == 2


def _biased(wiring: Wiring, node: onnx.NodeProto) -> bool:
    """Whether the third input is none, or one weight a channel."""
    return len(node.input) < 3 or not node.input[2] or wiring.bias(node) is not None
