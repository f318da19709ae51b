"""Bundles made from the reference bundle by changing it: what a maker's tools would have written, digests and all."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from edge import bundle as bundles
from edge import bundle_write, golden

OWN = "file"
_FILES = ("file", "sha256", "lowerings")
HARDWARE = ("arm", "trt", "x86")
Array = NDArray[Any]


@dataclass
class Draft:
    """A bundle before it is written.

    Attributes:
        manifest: without files, digests and golden vectors.
        models: engine -> target ("file" is its own) -> graph.
        golden: inputs, or None for no vectors.
        hardware: that it is released for.
        finish: what is done to the folder once it is written: damage that no maker's tool repairs.
    """

    manifest: dict[str, Any]
    models: dict[str, dict[str, onnx.ModelProto]]
    golden: dict[str, golden.Tensors] | None
    hardware: tuple[str, ...] = HARDWARE
    finish: list[Callable[[Path], None]] = field(default_factory=list)

    def each(self, engine: str, edit: Callable[[onnx.ModelProto], None]) -> None:
        """Do the same to an engine and all its lowerings."""
        for model in self.models[engine].values():
            edit(model)

    def weights(self, engine: str, name: str, edit: Callable[[Array], Array]) -> None:
        """Change one initializer wherever it is; names end with `name`."""
        found = False
        for model in self.models[engine].values():
            for tensor in model.graph.initializer:
                if tensor.name.endswith(name):
                    old = numpy_helper.to_array(tensor)
                    tensor.CopyFrom(numpy_helper.from_array(edit(old.copy()).astype(old.dtype), tensor.name))
                    found = True
        assert found, f"no initializer {name} in {engine}"

    def all_weights(self, engine: str, edit: Callable[[str, Array], Array], least: int = 256) -> None:
        """Change all weights of an engine that have two dimensions and more, the same in each lowering."""
        done: dict[str, Array] = {}
        for model in self.models[engine].values():
            for tensor in model.graph.initializer:
                old = numpy_helper.to_array(tensor)
                if old.ndim < 2 or old.size < least or old.dtype.kind not in "fi" or old.dtype == np.int64:
                    continue
                if tensor.name not in done:
                    done[tensor.name] = edit(tensor.name, old.copy()).astype(old.dtype)
                tensor.CopyFrom(numpy_helper.from_array(done[tensor.name], tensor.name))

    def after(self, engine: str, output: str, make: Callable[[str, str], Iterable[Any]], **constants: Array) -> None:
        """Put nodes behind an output: make(raw, output) gives them."""

        def edit(model: onnx.ModelProto) -> None:
            raw = f"{output}.raw"
            for node in model.graph.node:
                for names in (node.input, node.output):
                    for i, name in enumerate(names):
                        if name == output:
                            names[i] = raw
            model.graph.node.extend(make(raw, output))
            _add(model, constants)

        self.each(engine, edit)

    def before(self, engine: str, given: str, make: Callable[[str, str], Iterable[Any]], **constants: Array) -> None:
        """Put nodes behind an input: make(input, changed) gives them."""

        def edit(model: onnx.ModelProto) -> None:
            changed = f"{given}.changed"
            for node in model.graph.node:
                for i, name in enumerate(node.input):
                    if name == given:
                        node.input[i] = changed
            old = list(model.graph.node)
            del model.graph.node[:]
            model.graph.node.extend([*make(given, changed), *old])
            _add(model, constants)

        self.each(engine, edit)

    def write(self, folder: Path) -> Path:
        """The folder of the bundle, as edge.bundle_write makes it, and then as it was damaged."""
        own = {name: targets[OWN].SerializeToString() for name, targets in self.models.items()}
        lowered = {
            name: {target: model.SerializeToString() for target, model in targets.items() if target != OWN}
            for name, targets in self.models.items()
        }
        if self._is_of_the_reference(own, lowered):  # only words differ: no need to fold and answer all again
            _copied(folder, self.manifest)
        else:
            bundle_write.write(folder, bundle_write.Parts(self.manifest, own, lowered, self.golden))
        for damage in self.finish:
            damage(folder)
        return folder

    def _is_of_the_reference(self, own: dict[str, bytes], lowered: dict[str, dict[str, bytes]]) -> bool:
        reference = draft()
        theirs = {name: targets[OWN].SerializeToString() for name, targets in reference.models.items()}
        if own != theirs or {name: set(found) for name, found in lowered.items()} != {
            name: set(targets) - {OWN} for name, targets in reference.models.items()
        }:
            return False
        if any(
            model != reference.models[name][target].SerializeToString()
            for name, found in lowered.items()
            for target, model in found.items()
        ):
            return False
        return self.golden is not None and all(
            np.array_equal(rows, self.golden.get(name, {}).get(tensor))
            for name, tensors in (reference.golden or {}).items()
            for tensor, rows in tensors.items()
        )


def _copied(folder: Path, manifest: dict[str, Any]) -> None:
    """The reference bundle's files under another manifest."""
    reference = bundles.load()
    shutil.copytree(reference.path, folder, dirs_exist_ok=True)
    made = {"format": bundles.FORMAT, **copy.deepcopy(manifest), "golden": reference.manifest["golden"]}
    for name, spec in reference.manifest["encoders"].items():
        made["encoders"][name] |= {key: spec[key] for key in _FILES if key in spec}
    made["fuse"] |= {key: reference.manifest["fuse"][key] for key in _FILES if key in reference.manifest["fuse"]}
    (folder / bundles.MANIFEST).write_text(bundle_write.canonical(made))


def draft() -> Draft:
    """The reference bundle."""
    bundle = bundles.load()
    manifest = copy.deepcopy({key: value for key, value in bundle.manifest.items() if key not in ("format", "golden")})
    for entry in (*manifest["encoders"].values(), manifest["fuse"]):
        for key in _FILES:
            entry.pop(key, None)
    models = {
        name: {
            target: onnx.load_model_from_string(file.read())
            for target, file in {OWN: spec.file, **spec.lowerings}.items()
        }
        for name, spec in bundle.engines.items()
    }
    assert bundle.golden is not None
    return Draft(manifest, models, copy.deepcopy(golden.read(bundle.golden.path).inputs))


def node(kind: str, inputs: list[str], outputs: list[str], **attributes: Any) -> Any:
    """A node."""
    return helper.make_node(kind, inputs, outputs, **attributes)


def _add(model: onnx.ModelProto, constants: dict[str, Array]) -> None:
    model.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()
    )
