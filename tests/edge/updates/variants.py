"""Other bundles than the reference one, made of it: as good, worse in a way that is known, or broken."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edge.bundle import REFERENCE

Change = Callable[[Any], None]


def variant(folder: Path, **changes: Change) -> Path:
    """The reference bundle as a folder, without lowerings; `changes` alter engines' models in place."""
    folder.mkdir()
    manifest = json.loads((REFERENCE / "manifest.json").read_bytes())
    del manifest["golden"]
    manifest["version"] = folder.name
    for name, entry in {**manifest["encoders"], "fuse": manifest["fuse"]}.items():
        entry.pop("lowerings", None)
        content = (REFERENCE / entry["file"]).read_bytes()
        if name in changes:
            model = onnx.load_from_string(content)
            changes[name](model)
            content = model.SerializeToString(deterministic=True)
        (folder / entry["file"]).write_bytes(content)
        entry["sha256"] = hashlib.sha256(content).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest, sort_keys=True))
    return folder


def after(model: Any, output: str, nodes: Sequence[Any], **constants: Any) -> None:
    """Let `nodes` make an output of what it was, which they take as `raw`."""
    for node in model.graph.node:
        for names in (node.input, node.output):
            for i, name in enumerate(names):
                if name == output:
                    names[i] = "raw"
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()
    )


def scaled(output: str, factor: float, offset: float = 0.0) -> Change:
    """raw * factor + offset."""
    nodes = [
        helper.make_node("Mul", ["raw", "variant.factor"], ["variant.scaled"]),
        helper.make_node("Add", ["variant.scaled", "variant.offset"], [output]),
    ]
    constants = {"variant.factor": np.float32(factor), "variant.offset": np.float32(offset)}
    return lambda model: after(model, output, nodes, **constants)


def not_finite(output: str) -> Change:
    return scaled(output, float("nan"))


def dead(output: str) -> Change:
    """Always the same."""
    return scaled(output, 0.0, 0.1)


def raising(model: Any) -> None:
    """Of fusion: fails at run time as soon as a camera is there; fine on the zeros of warming up."""
    nodes = [
        helper.make_node("ReduceMax", ["presence"], ["variant.any"], keepdims=0),
        helper.make_node("Mul", ["variant.any", "variant.far"], ["variant.place"]),
        helper.make_node("Cast", ["variant.place"], ["variant.index"], to=TensorProto.INT64),
        helper.make_node("Gather", ["variant.table", "variant.index"], ["variant.zero"], axis=0),
        helper.make_node("Add", ["raw", "variant.zero"], ["scene_tags"]),
    ]
    after(
        model, "scene_tags", nodes, **{"variant.far": np.float32(9), "variant.table": np.zeros((1,), np.float32)}
    )  # fmt: skip


def slow(output: str, rounds: int, size: int = 768) -> Change:
    """The same values after `rounds` products of matrices (about size^3 multiplications each)."""

    def change(model: Any) -> None:
        nodes = [
            helper.make_node("ReduceSum", ["raw"], ["variant.sum"], keepdims=0),
            helper.make_node("Mul", ["variant.matrix", "variant.sum"], ["variant.m0"]),
        ]
        for i in range(rounds):
            nodes.append(helper.make_node("MatMul", [f"variant.m{i}", "variant.matrix"], [f"variant.p{i}"]))
            nodes.append(helper.make_node("Tanh", [f"variant.p{i}"], [f"variant.m{i + 1}"]))
        nodes += [
            helper.make_node("ReduceMean", [f"variant.m{rounds}"], ["variant.mean"], keepdims=0),
            helper.make_node("Mul", ["variant.mean", "variant.none"], ["variant.nothing"]),
            helper.make_node("Add", ["raw", "variant.nothing"], [output]),
        ]
        rng = np.random.default_rng(1)
        matrix = rng.normal(0, size**-0.5, (size, size)).astype(np.float32)
        after(model, output, nodes, **{"variant.matrix": matrix, "variant.none": np.float32(0)})

    return change
