"""int8 graphs for each runtime, from one float graph and one ranges file: explicit QDQ, per-channel symmetric weights.

    trt  int8 activations, zero point 0, float bias: the only form that TensorRT takes.
    x86  uint8 activations, zero point 128, or 0 behind a ReLU (which ONNX Runtime then folds into the Conv).
    arm  int8 activations, zero point 0, or -128 behind a ReLU: x86 less 128, bit for bit.

All three have the same nodes in int8, the same scales and the same weights. Behind a ReLU uint8 would reach 255 quanta;
a Clip cuts off at 127, as int8 does. So they are twins whatever comes in, and differ only where a runtime rounds a tie
its own way. Biases are rounded to steps of the int32 accumulator in all. Pictures of bytes are not rounded at all: x86
takes the byte as the quantum, arm the byte less 128, and trt computes that Conv in float, with the rounded weights.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from calibration.canonical import canonical, canonical_id
from calibration.ranges import Ranges
from edge.errors import ConfigError
from export.layout import WEIGHTED, Layout, Pixels, Wiring, layout
from export.scales import QUANTA, SCALES, activation_scale, kept_scales, weight_scales

F32 = NDArray[np.float32]
_BIAS_LIMIT = 2.0**30  # quanta of the int32 accumulator


@dataclass(frozen=True, slots=True)
class Target:
    """How a runtime wants activations.

    Attributes:
        kind: int8 or uint8.
        zero: zero point.
        relu_zero: zero point of what a ReLU made.
        int_bias: whether a bias is int32 with a DequantizeLinear (without, ONNX Runtime has no int8 Gemm), or float.
        bytes: whether a uint8 tensor may be taken as it is.
        casts_first: whether an input of bytes must become float before anything else (TensorRT moves no bytes).
    """

    kind: Any
    zero: int
    relu_zero: int
    int_bias: bool
    bytes: bool = False
    casts_first: bool = False


TARGETS = {
    "trt": Target(np.int8, 0, 0, int_bias=False, casts_first=True),
    "x86": Target(np.uint8, 128, 0, int_bias=True, bytes=True),
    "arm": Target(np.int8, 0, -128, int_bias=True),
}


def lower_to(
    model: onnx.ModelProto,
    ranges: Ranges | None,
    target: str,
    floats: Collection[str] = (),
    scales: str = "minmax",
    base: onnx.ModelProto | None = None,
) -> onnx.ModelProto:
    """The int8 graph of a float graph, the same bytes for the same input.

    Args:
        model: float; see `calibration.canonical` for what it may be.
        ranges: of exactly this model; None where `base` has all scales.
        target: of TARGETS.
        floats: names of nodes to keep float, as a plan says.
        scales: how they are drawn from the histograms, of `export.scales.SCALES`.
        base: an int8 graph of an earlier version, in the same form as `x86`: its scales are frozen, so that what
            training changed a little differs a little from it, and an update is small. A channel of weights that
            left its range gets a scale of its own.

    Raises:
        ConfigError: the model can't be lowered, the ranges are another model's, or there is no such target or node.
    """
    if target not in TARGETS:
        raise ConfigError(f"target: expected one of {', '.join(TARGETS)}, got {target!r}")
    if scales not in SCALES:
        raise ConfigError(f"scales: expected one of {', '.join(SCALES)}, got {scales!r}")
    plain = canonical(model)
    if ranges is not None:
        ranges.belong_to(canonical_id(plain))
    elif base is None:
        raise ConfigError("ranges: expected those of the model or a base with scales, got neither")
    if any(node.op_type in ("QuantizeLinear", "DequantizeLinear") for node in plain.graph.node):
        raise ConfigError("model: expected a float graph, got one with QuantizeLinear or DequantizeLinear")
    wiring = Wiring(plain.graph)
    unknown = sorted(set(floats) - {node.name for node in plain.graph.node})
    if unknown:
        raise ConfigError(f"plan: expected nodes of the model, got {unknown[0]!r}")
    return _Writer(plain, wiring, layout(wiring, floats), _Scales(ranges, scales, base), TARGETS[target]).write()


def int8_nodes(model: onnx.ModelProto, floats: Collection[str] = ()) -> tuple[str, ...]:
    """Names of the nodes that `lower_to` makes int8, in graph order."""
    return layout(Wiring(canonical(model).graph), floats).nodes


class _Scales:
    """Where scales come from: the base where there is one, else histograms and weights."""

    def __init__(self, ranges: Ranges | None, how: str, base: onnx.ModelProto | None) -> None:
        self._ranges, self._how, self._base = ranges, how, {}
        for tensor in base.graph.initializer if base is not None else ():
            if tensor.name.endswith(".scale"):
                self._base[tensor.name] = numpy_helper.to_array(tensor)

    def of_tensor(self, name: str, source: str) -> np.float32:
        kept = self._base.get(f"{name}.scale")
        if kept is not None and kept.size == 1:
            return np.float32(kept.reshape(()))
        if self._ranges is None:
            raise ConfigError(f"base: expected the scale of the tensor {name}, got none of that name")
        if source not in self._ranges.tensors:
            raise ConfigError(f"ranges: expected the tensor {source}, got none of that name")
        return activation_scale(self._ranges.tensors[source], self._how)

    def of_weight(self, node: str, weight: F32, axis: int) -> F32:
        kept = self._base.get(f"{node}.weight.scale")
        fresh = weight_scales(weight, axis)
        return kept_scales(kept, fresh) if kept is not None and kept.shape == fresh.shape else fresh


class _Writer:
    """Writes one lowered graph, node by node in the order of the float graph."""

    def __init__(self, model: onnx.ModelProto, wiring: Wiring, chosen: Layout, scales: _Scales, target: Target) -> None:
        self._from = scales
        self._model, self._wiring, self._layout, self._target = model, wiring, chosen, target
        self._int8 = frozenset(chosen.nodes)
        self._stored, self._read = frozenset(chosen.stored), frozenset(chosen.read)
        self._pixels = {name: found for name in chosen.read if (found := wiring.pixels(name))}
        self._scales = {name: self._scale(name) for name in (*chosen.stored, *chosen.read)}
        self._nodes: list[onnx.NodeProto] = []
        self._weights = dict(wiring.weights)
        self._biases: dict[tuple[str, str], str] = {}  # (given bias, node that adds it) -> rounded bias

    def write(self) -> onnx.ModelProto:
        for value in self._model.graph.input:
            self._store(value.name)
        for node in self._model.graph.node:
            fresh = onnx.NodeProto()
            fresh.CopyFrom(node)
            int8 = node.name in self._int8
            fresh.input[:] = [self._taken(name, int8) for name in node.input]
            if int8 and node.op_type in WEIGHTED and node.input[1] in self._wiring.weights:
                self._weigh(fresh, node)
            for i, name in enumerate(node.input):
                fresh.input[i] = self._biases.get((name, node.name), fresh.input[i])
            self._nodes.append(fresh)
            for name in node.output:
                self._store(name)
        lowered = onnx.ModelProto()
        lowered.CopyFrom(self._model)
        del lowered.graph.node[:], lowered.graph.initializer[:]
        nodes = _needed(self._nodes, {value.name for value in lowered.graph.output})
        if self._target.casts_first:
            _cast_first(nodes, {value.name for value in lowered.graph.input})
        lowered.graph.node.extend(nodes)
        lowered.graph.initializer.extend(self._weights.values())
        return canonical(lowered)

    def _scale(self, name: str) -> np.float32:
        if name in self._pixels:
            return np.float32(self._pixels[name].scale)
        return self._from.of_tensor(name, self._layout.like.get(name, name))

    def _taken(self, name: str, int8: bool) -> str:
        """The name under which a node takes a tensor."""
        stored = name in self._stored or (int8 and name in self._read and not self._is_left_float(name))
        return f"{name}.dq" if stored else name

    def _is_left_float(self, name: str) -> bool:
        """Bytes that the target can't take as they are: their Conv computes in float, with the rounded weights."""
        return name in self._pixels and self._target.relu_zero == self._target.zero

    def _store(self, name: str) -> None:
        """Writes the Q/DQ pair behind a tensor that is stored or read in int8."""
        if (name not in self._stored and name not in self._read) or self._is_left_float(name):
            return
        origin = self._layout.like.get(name, name)
        maker = self._wiring.maker.get(origin)
        relu = maker is not None and maker.op_type == "Relu"
        scale = self._add(f"{name}.scale", self._scales[name])
        pixels: Pixels | None = self._pixels.get(name) if self._target.bytes else None
        zero = self._constant("zero", self._target.relu_zero if relu or name in self._pixels else self._target.zero)
        source = f"{name}.q" if pixels is None else pixels.source
        if pixels is None:
            self._nodes.append(helper.make_node("QuantizeLinear", [name, scale, zero], [source], source))
        if relu and origin == name and self._target.relu_zero != self._target.zero:
            most = self._constant("most", self._target.relu_zero + QUANTA)
            self._nodes.append(helper.make_node("Clip", [source, zero, most], [f"{name}.cut"], f"{name}.cut"))
            source = f"{name}.cut"
        self._nodes.append(helper.make_node("DequantizeLinear", [source, scale, zero], [f"{name}.dq"], f"{name}.dq"))

    def _weigh(self, fresh: onnx.NodeProto, node: onnx.NodeProto) -> None:
        """Gives an int8 node its rounded weight, and the node that adds its bias the rounded bias."""
        weight = numpy_helper.to_array(self._wiring.weights[node.input[1]]).astype(np.float32)
        transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
        axis = 0 if node.op_type == "Conv" or transposed else 1
        scales = self._from.of_weight(node.name, weight, axis)
        bias = self._wiring.bias(node)
        if bias is not None:
            scales = self._add_bias(node.name, bias.values, scales, self._scales[node.input[0]])
            self._biases[bias.name, bias.adder] = f"{node.name}.bias" + (".dq" if self._target.int_bias else "")
        shape = [1] * weight.ndim
        shape[axis] = -1
        quanta = np.clip(np.rint(weight / scales.reshape(shape)), -QUANTA, QUANTA).astype(np.int8)
        if self._is_left_float(node.input[0]):
            fresh.input[1] = self._add(f"{node.name}.weight", quanta * scales.reshape(shape))
        else:
            fresh.input[1] = self._dequantised(f"{node.name}.weight", quanta, scales, axis)

    def _add_bias(self, name: str, bias: F32, weight_scale: F32, scale_in: np.float32) -> F32:
        """Writes the bias in steps of the accumulator; returns weight scales for which it fits into int32."""
        exact = bias.astype(np.float64)
        scales = np.maximum(weight_scale, (np.abs(exact) / (float(scale_in) * _BIAS_LIMIT)).astype(np.float32))
        steps = scales * scale_in  # float32, as the runtime computes it
        quanta = np.rint(exact / steps).astype(np.int32)
        if self._target.int_bias:
            self._dequantised(f"{name}.bias", quanta, steps, 0)
        else:
            self._add(f"{name}.bias", quanta.astype(np.float32) * steps)
        return scales

    def _dequantised(self, name: str, quanta: Any, scales: F32, axis: int) -> str:
        zeros = self._add(f"zeros.{quanta.dtype}.{len(scales)}", np.zeros(len(scales), quanta.dtype))
        names = [self._add(f"{name}.q", quanta), self._add(f"{name}.scale", scales), zeros]
        self._nodes.append(helper.make_node("DequantizeLinear", names, [f"{name}.dq"], f"{name}.dq", axis=axis))
        return f"{name}.dq"

    def _constant(self, what: str, value: int) -> str:
        kind = np.dtype(self._target.kind)
        return self._add(f"{what}.{kind.name}.{value}", np.array(value, kind))

    def _add(self, name: str, values: Any) -> str:
        self._weights[name] = numpy_helper.from_array(np.asarray(values), name)
        return name


def _needed(nodes: list[onnx.NodeProto], outputs: set[str]) -> list[onnx.NodeProto]:
    """Without the nodes that nothing needs."""
    wanted, kept = set(outputs), []
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            kept.append(node)
            wanted.update(node.input)
    return kept[::-1]


def _cast_first(nodes: list[onnx.NodeProto], inputs: set[str]) -> None:
    """Where an input is laid out anew and then cast, cast it before: the same values, bit for bit."""
    for start in inputs:
        chain = _layout_chain(nodes, start)
        if not chain or nodes[chain[-1]].op_type != "Cast":
            continue
        *moves, cast = (nodes[at] for at in chain)
        names = [node.output[0] for node in (*moves, cast)]
        for node, given, made in zip((cast, *moves), (start, *names), names):
            node.input[0], node.output[0] = given, made
        for at, node in zip(chain, (cast, *moves)):
            nodes[at] = node


def _layout_chain(nodes: list[onnx.NodeProto], name: str) -> list[int]:
    """Places of the Transposes and Reshapes that a tensor runs through, each its only reader, and of what follows."""
    chain: list[int] = []
    while not chain or nodes[chain[-1]].op_type in ("Transpose", "Reshape"):
        readers = [at for at, node in enumerate(nodes) if name in node.input]
        if len(readers) != 1 or nodes[readers[0]].input[0] != name:
            return []
        chain.append(readers[0])
        name = nodes[readers[0]].output[0]
    return chain if len(chain) > 1 else []
