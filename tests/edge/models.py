"""Small ONNX models and bundles of them, whose answers are known."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def save(path: Path, nodes: list[Any], inputs: list[Any], outputs: list[Any], **constants: Any) -> Path:
    """An ONNX file; `constants` become initializers."""
    stored = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "small", inputs, outputs, stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, str(path))
    return path


def value(name: str, shape: tuple[Any, ...], kind: int = FLOAT) -> Any:
    """A graph input or output; a word in the shape is a dynamic dimension."""
    return helper.make_tensor_value_info(name, kind, shape)


def listener(path: Path, batch: Any = "batch", samples: Any = "samples") -> Path:
    """Hears a stream: `loudness` is the mean of the window, `count` + `step` the windows heard so far."""
    nodes = [
        helper.make_node("ReduceMean", ["sound"], ["loudness"], axes=[1], keepdims=1),
        helper.make_node("Cast", ["step"], ["step_float"], to=FLOAT),
        helper.make_node("Add", ["count", "step_float"], ["count_next"]),
    ]
    inputs = [value("sound", (batch, samples)), value("count", (1, batch)), value("step", (), INT64)]
    return save(path, nodes, inputs, [value("loudness", (batch, 1)), value("count_next", (1, batch))])


LISTENER: dict[str, Any] = {
    "modality": "audio",
    "input": {"name": "sound", "dtype": "float32", "rate_hz": 16000, "samples": 200, "hop": 160},
    "state": {"count": "count_next"},
    "constants": {"step": 1},
    "outputs": {"sound_events": "loudness"},
    "heads": {"sound_events": ["loud"]},
}


_ONE_OBJECT = [
    helper.make_node("Concat", ["kind", "score", "box"], ["row"], axis=0),
    helper.make_node("Reshape", ["row", "rows"], ["found"]),
]
_ITS_CONSTANTS = {
    "one": np.array([1], np.int64),
    "kind": np.array([1], np.float32),
    "box": np.array([0, 0, 0.5, 0.5], np.float32),
    "rows": np.array([1, 1, 6], np.int64),
}


def detector(path: Path, size: tuple[Any, Any] = (12, 16)) -> Path:
    """Sees one object in every picture: class 1, as probable as the picture is bright, in its left upper quarter."""
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["brightness"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Reshape", ["brightness", "one"], ["score"]),
        *_ONE_OBJECT,
    ]
    return save(path, nodes, [value("image", ("n", 3, *size))], [value("found", (1, 1, 6))], **_ITS_CONSTANTS)


def rememberer(path: Path) -> Path:
    """As `detector`, but half as probable as the picture is bright and half as the last object was: a state."""
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["brightness"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Reshape", ["brightness", "one"], ["now"]),
        helper.make_node("Add", ["now", "last"], ["both"]),
        helper.make_node("Mul", ["both", "half"], ["score"]),
        helper.make_node("Identity", ["score"], ["last_next"]),
        *_ONE_OBJECT,
    ]
    inputs, state = [value("image", (1, 3, 12, 16)), value("last", (1,))], value("last_next", (1,))
    return save(
        path, nodes, inputs, [value("found", (1, 1, 6)), state], half=np.array([0.5], np.float32), **_ITS_CONSTANTS
    )


DETECTOR: dict[str, Any] = {
    "modality": "camera",
    "input": {
        "name": "image", "dtype": "float32", "layout": "NCHW", "color": "RGB", "width_px": 16, "height_px": 12,
        "scale": 1 / 255,
    },
    "outputs": {"objects": "found"},
    "heads": {"objects": ["nothing", "thing"]},
    "thresholds": {"objects": 0.25},
}  # fmt: skip


def adder(path: Path, shape: tuple[Any, ...] = (1, 4)) -> Path:
    """total = left + right, total_next = total."""
    nodes = [
        helper.make_node("Add", ["left", "right"], ["total"]),
        helper.make_node("Identity", ["total"], ["total_next"]),
    ]
    return save(
        path,
        nodes,
        [value("left", shape), value("right", shape)],
        [value("total", shape), value("total_next", shape)],
    )


def bundle_folder(folder: Path, model: Callable[[Path], Path] = detector, **changes: Any) -> Path:
    """A bundle of one detector; `changes` replace keys of its manifest, or of its encoder."""
    folder.mkdir()
    content = model(folder / "camera.onnx").read_bytes()
    onnx_model = onnx.load_from_string(content)
    onnx_model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    content = onnx_model.SerializeToString(deterministic=True)
    (folder / "camera.onnx").write_bytes(content)
    encoder = {
        "file": "camera.onnx",
        "sha256": hashlib.sha256(content).hexdigest(),
        "precision": "fp32",
        "input": DETECTOR["input"],
        "outputs": DETECTOR["outputs"],
    }
    encoder |= changes.pop("encoder", {})
    manifest = {
        "format": 1,
        "name": "small",
        "version": "1",
        "encoders": {"camera": encoder},
        "heads": DETECTOR["heads"],
        "thresholds": DETECTOR["thresholds"],
    }
    manifest |= changes
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder
