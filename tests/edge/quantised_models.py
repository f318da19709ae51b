"""Small explicitly quantised ONNX models, right for TensorRT or wrong in one chosen way."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

CHANNELS = 16
INT8_NODES = ("conv0", "conv1", "gemm")


class _Graph:
    """Nodes and initializers as they are written."""

    def __init__(self, kind: Any, zero: int) -> None:
        self.nodes: list[Any] = []
        self.stored: list[Any] = []
        self._kind, self._zero = kind, zero

    def store(self, name: str, values: Any) -> str:
        self.stored.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def node(self, kind: str, inputs: list[str], output: str, name: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], name=name, **attributes))
        return output

    def quantised(self, tensor: str, scale: float) -> str:
        names = [self.store(f"{tensor}.scale", np.float32(scale)), self.store(f"{tensor}.zero", self._kind(self._zero))]
        self.node("QuantizeLinear", [tensor, *names], f"{tensor}.q", f"{tensor}_Q")
        return self.node("DequantizeLinear", [f"{tensor}.q", *names], f"{tensor}.dq", f"{tensor}_DQ")

    def weights(self, name: str, shape: tuple[int, ...], axis: int, seed: int) -> str:
        values = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
        others = tuple(i for i in range(len(shape)) if i != axis)
        scales = (np.abs(values).max(axis=others) / 127).astype(np.float32)
        quanta = np.rint(values / np.expand_dims(scales, others)).astype(np.int8)
        inputs = [
            self.store(f"{name}.q", quanta),
            self.store(f"{name}.scale", scales),
            self.store(f"{name}.zero", np.zeros(len(scales), np.int8)),
        ]
        return self.node("DequantizeLinear", inputs, f"{name}.dq", f"{name}_DQ", axis=axis)

    def bias(self, name: str, as_int32: bool) -> str:
        if not as_int32:
            return self.store(name, np.linspace(-1, 1, CHANNELS, dtype=np.float32))
        inputs = [
            self.store(f"{name}.q", np.arange(CHANNELS, dtype=np.int32)),
            self.store(f"{name}.scale", np.full(CHANNELS, 0.001, np.float32)),
            self.store(f"{name}.zero", np.zeros(CHANNELS, np.int32)),
        ]
        return self.node("DequantizeLinear", inputs, f"{name}.dq", f"{name}_DQ", axis=0)


def classifier(
    *, kind: Any = np.int8, zero: int = 0, int32_bias: bool = False, opset: int = 17, batch: Any = 1
) -> bytes:
    """Two convolutions and a Gemm, all in int8: x (batch, 3, 32, 32) -> y (batch, 10)."""
    graph = _Graph(kind, zero)
    conv = {"pads": [1, 1, 1, 1], "strides": [2, 2]}
    first = [graph.quantised("x", 0.02), graph.weights("w0", (CHANNELS, 3, 3, 3), 0, 0), graph.bias("b0", int32_bias)]
    graph.node("Relu", [graph.node("Conv", first, "c0", "conv0", **conv)], "r0", "relu0")
    second = [
        graph.quantised("r0", 0.05),
        graph.weights("w1", (CHANNELS, CHANNELS, 3, 3), 0, 1),
        graph.bias("b1", False),
    ]
    graph.node("Relu", [graph.node("Conv", second, "c1", "conv1", **conv)], "r1", "relu1")
    flat = graph.node("Flatten", [graph.quantised("r1", 0.05)], "flat", "flatten")
    graph.node("Gemm", [flat, graph.weights("w2", (CHANNELS * 64, 10), 1, 2)], "y", "gemm")
    return model(graph.nodes, [("x", (batch, 3, 32, 32))], [("y", (batch, 10))], graph.stored, opset=opset)


def floats() -> bytes:
    """Three convolutions with nothing quantised: x (1, 3, 16, 16) -> y (1, 16, 16, 16)."""
    graph, source, made = _Graph(np.int8, 0), "x", 3
    for i in range(3):
        values = np.random.default_rng(i).normal(size=(CHANNELS, made, 3, 3)).astype(np.float32)
        weight, made = graph.store(f"w{i}", values), CHANNELS
        inputs = [source, weight, graph.bias(f"b{i}", False)]
        out = graph.node("Conv", inputs, f"c{i}", f"conv{i}", pads=[1, 1, 1, 1])
        source = graph.node("Relu", [out], "y" if i == 2 else f"r{i}", f"relu{i}")
    return model(graph.nodes, [("x", (1, 3, 16, 16))], [("y", (1, CHANNELS, 16, 16))], graph.stored)


def single(kind: str, domain: str = "") -> bytes:
    """One node of some operator on a (1, 4, 4) tensor."""
    nodes = [helper.make_node(kind, ["x"], ["y"], name="only", domain=domain)]
    return model(nodes, [("x", (1, 4, 4))], [("y", (1, 4, 4))], domain=domain)


def model(nodes: Any, inputs: Any, outputs: Any, stored: Any = (), *, opset: int = 17, domain: str = "") -> bytes:
    """ONNX bytes of float inputs and outputs."""
    tensors = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in side]
        for side in (inputs, outputs)
    ]
    opsets = [helper.make_opsetid("", opset), *([helper.make_opsetid(domain, 1)] if domain else [])]
    graph = helper.make_graph(nodes, "small", *tensors, list(stored))
    content: bytes = helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString(deterministic=True)
    return content
