"""Small float graphs with what lowerings must deal with, and inputs for them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


class Builder:
    """Collects nodes and weights; each method returns the name of what it made."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def weight(self, name: str, values: Any) -> str:
        self.weights.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def node(self, operator: str, inputs: list[str], name: str, **settings: Any) -> str:
        self.nodes.append(helper.make_node(operator, inputs, [f"{name}_out"], name, **settings))
        return f"{name}_out"

    def conv(self, x: str, inputs: int, outputs: int, name: str, kernel: int = 3, groups: int = 1) -> str:
        spread = (2.0 / (inputs // groups * kernel * kernel)) ** 0.5
        shape = (outputs, inputs // groups, kernel, kernel)
        w = self.weight(f"{name}_w", (self.rng.normal(size=shape) * spread).astype(np.float32))
        b = self.weight(f"{name}_b", (self.rng.normal(size=outputs) * 0.1).astype(np.float32))
        return self.node("Conv", [x, w, b], name, pads=[kernel // 2] * 4, group=groups)

    def relu(self, x: str) -> str:
        return self.node("Relu", [x], f"{x}_relu")

    def linear(self, x: str, inputs: int, outputs: int, name: str) -> str:
        """MatMul and Add, as exporters write a linear layer over tokens."""
        w = self.weight(f"{name}_w", (self.rng.normal(size=(inputs, outputs)) / inputs**0.5).astype(np.float32))
        b = self.weight(f"{name}_b", (self.rng.normal(size=outputs) * 0.1).astype(np.float32))
        return self.node("Add", [b, self.node("MatMul", [x, w], f"{name}_mul")], f"{name}_add")

    def model(
        self, inputs: dict[str, tuple[int, list[Any]]], outputs: dict[str, list[int]], opset: int = 17
    ) -> onnx.ModelProto:
        taken = [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()]
        made = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()]
        graph = helper.make_graph(self.nodes, "g", taken, made, self.weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def camera() -> onnx.ModelProto:
    """Bytes in; convolutions with a residual, an upsampled branch, a pooled head, and maps from a last Conv."""
    b = Builder()
    x = b.node("Transpose", ["image"], "nchw", perm=[0, 3, 1, 2])
    x = b.node("Cast", [x], "cast", to=TensorProto.FLOAT)
    x = b.node("Mul", [x, b.weight("scale", np.float32(1 / 255))], "unit")
    first = b.relu(b.conv(x, 3, 16, "first"))
    skipped = b.node("Add", [b.conv(first, 16, 16, "inner"), first], "residual")
    near = b.relu(skipped)
    small = b.node("MaxPool", [near], "pool", kernel_shape=[2, 2], strides=[2, 2])
    far = b.relu(b.conv(small, 16, 32, "far"))
    wide = b.node("Resize", [b.relu(b.conv(far, 32, 16, "lateral", 1)), "", b.weight("twice", _scales())], "wide",
                  mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor")  # fmt: skip
    both = b.node("Concat", [near, wide], "both", axis=1)
    b.conv(b.relu(b.conv(both, 32, 16, "blend")), 16, 5, "maps", 1)
    flat = b.node("Flatten", [b.node("GlobalAveragePool", [far], "mean")], "flat")
    w = b.weight("head_w", (b.rng.normal(size=(10, 32)) * 0.3).astype(np.float32))
    b.node("Gemm", [flat, w, b.weight("head_b", b.rng.normal(size=10).astype(np.float32))], "head", transB=1)
    return b.model({"image": (TensorProto.UINT8, [1, 16, 24, 3])}, {"maps_out": [1, 5, 16, 24], "head_out": [1, 10]})


def attention() -> onnx.ModelProto:
    """One pre-norm block over 12 tokens of width 32."""
    b = Builder(1)
    gain, shift = b.weight("gain", np.ones(32, np.float32)), b.weight("shift", np.zeros(32, np.float32))
    normed = b.node("LayerNormalization", ["x", gain, shift], "norm")
    q, k, v = (b.linear(normed, 32, 32, name) for name in ("q", "k", "v"))
    logits = b.node("MatMul", [q, b.node("Transpose", [k], "kt", perm=[0, 2, 1])], "qk")
    shares = b.node("Softmax", [b.node("Mul", [logits, b.weight("root", np.float32(32**-0.5))], "scaled")], "soft")
    mixed = b.linear(b.node("MatMul", [shares, v], "mix"), 32, 32, "out")
    x = b.node("Add", ["x", mixed], "skip")
    up = b.relu(b.linear(x, 32, 64, "up"))
    b.node("Add", [x, b.linear(up, 64, 32, "down")], "y")
    return b.model({"x": (TensorProto.FLOAT, [1, 12, 32])}, {"y_out": [1, 12, 32]})


def kept_float() -> onnx.ModelProto:
    """A power spectrum by Conv, a depthwise Conv and a Conv that makes an output: nothing that int8 is good for."""
    b = Builder(2)
    spectrum = b.node("Mul", [(s := b.conv("x", 3, 8, "spectrum")), s], "power")
    logged = b.node("Log", [b.node("Add", [spectrum, b.weight("floor", np.float32(0.1))], "floored")], "log")
    deep = b.relu(b.conv(logged, 8, 8, "depthwise", groups=8))
    b.conv(b.relu(b.conv(deep, 8, 8, "inner")), 8, 4, "last")
    return b.model({"x": (TensorProto.FLOAT, [1, 3, 12, 12])}, {"last_out": [1, 4, 12, 12]})


def pictures(count: int, seed: int = 3) -> list[dict[str, np.ndarray]]:
    """Smooth byte pictures for `camera`."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, 4, 6, 3)).astype(np.uint8)
    return [{"image": picture.repeat(4, 0).repeat(4, 1)[None]} for picture in coarse]


def tokens(count: int, seed: int = 4) -> list[dict[str, np.ndarray]]:
    """Inputs for `attention`."""
    return [{"x": x[None]} for x in np.random.default_rng(seed).normal(size=(count, 12, 32)).astype(np.float32)]


def squares(count: int, seed: int = 5) -> list[dict[str, np.ndarray]]:
    """Inputs for `kept_float`."""
    return [{"x": x[None]} for x in np.random.default_rng(seed).normal(size=(count, 3, 12, 12)).astype(np.float32)]


def _scales() -> np.ndarray:
    return np.array([1, 1, 2, 2], np.float32)
