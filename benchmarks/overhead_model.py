"""A small int8 camera model for the benchmarks, made here: seeded weights and calibration pictures, explicit QDQ."""

from __future__ import annotations

import hashlib
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

HEIGHT_PX, WIDTH_PX = 192, 320
EMBEDDING = 128
TAGS = ("a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p")
_CHANNELS = (3, 16, 32, 48, 64)


def make_bundle(folder: Path, seed: int = 0) -> Path:
    """Write a camera-only bundle (embedding and scene tags, no fusion); returns its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    model = folder / "camera.onnx"
    _quantise(_float_model(seed), model, seed)
    manifest: dict[str, Any] = {
        "format": 1,
        "name": "benchmark",
        "version": "1",
        "encoders": {
            "camera": {
                "file": model.name,
                "sha256": hashlib.sha256(model.read_bytes()).hexdigest(),
                "precision": "int8",
                "input": {
                    "name": "image",
                    "dtype": "uint8",
                    "layout": "NHWC",
                    "color": "BGR",
                    "height_px": HEIGHT_PX,
                    "width_px": WIDTH_PX,
                },
                "outputs": {"embedding": "embedding", "scene_tags": "scene_tags"},
            }
        },
        "heads": {"scene_tags": list(TAGS)},
        "thresholds": {},
        "threads": 1,
        "warm_up": 3,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2, sort_keys=True))
    return folder


def _float_model(seed: int) -> onnx.ModelProto:
    """uint8 NHWC -> float -> four 3x3 convolutions of stride 2 -> mean -> embedding and tags."""
    rng = np.random.default_rng(seed)
    constants: list[onnx.TensorProto] = [numpy_helper.from_array(np.float32(1 / 255), "scale")]
    nodes = [
        helper.make_node("Cast", ["image"], ["cast"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["cast", "scale"], ["scaled"]),
        helper.make_node("Transpose", ["scaled"], ["x0"], perm=[0, 3, 1, 2]),
    ]
    for i, (before, after) in enumerate(pairwise(_CHANNELS)):
        weights = rng.normal(0, (2 / (9 * before)) ** 0.5, (after, before, 3, 3)).astype(np.float32)
        constants += [
            numpy_helper.from_array(weights, f"w{i}"),
            numpy_helper.from_array(np.zeros(after, np.float32), f"b{i}"),
        ]
        shape = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}
        nodes.append(helper.make_node("Conv", [f"x{i}", f"w{i}", f"b{i}"], [f"c{i}"], **shape))
        nodes.append(helper.make_node("Relu", [f"c{i}"], [f"x{i + 1}"]))
    last = len(_CHANNELS) - 1
    for name, size in (("embedding", EMBEDDING), ("tags", len(TAGS))):
        weights = rng.normal(0, _CHANNELS[-1] ** -0.5, (_CHANNELS[-1], size)).astype(np.float32)
        constants.append(numpy_helper.from_array(weights, f"w_{name}"))
    nodes += [
        helper.make_node("GlobalAveragePool", [f"x{last}"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w_embedding"], ["embedding"]),
        helper.make_node("MatMul", ["flat", "w_tags"], ["logits"]),
        helper.make_node("Sigmoid", ["logits"], ["scene_tags"]),
    ]
    graph = helper.make_graph(
        nodes,
        "benchmark",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, HEIGHT_PX, WIDTH_PX, 3])],
        [
            helper.make_tensor_value_info("embedding", TensorProto.FLOAT, [1, EMBEDDING]),
            helper.make_tensor_value_info("scene_tags", TensorProto.FLOAT, [1, len(TAGS)]),
        ],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    return model


def _quantise(model: onnx.ModelProto, path: Path, seed: int) -> None:
    floating = path.with_suffix(".float.onnx")
    onnx.save(model, floating)
    quantize_static(
        floating,
        path,
        _Pictures(seed),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        op_types_to_quantize=["Conv"],
    )
    floating.unlink()


class _Pictures(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        shape = (1, HEIGHT_PX, WIDTH_PX, 3)
        self._left = [{"image": rng.integers(0, 256, shape, dtype=np.uint8)} for _ in range(8)]

    def get_next(self) -> dict[str, Any] | None:
        return self._left.pop() if self._left else None
