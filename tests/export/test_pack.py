"""The manifest is canonical and holds what the vehicle checks."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="the export tier is not installed: no onnx")

from edge import bundle, golden  # noqa: E402
from edge.command import main as roadfuse  # noqa: E402
from edge.errors import BundleError  # noqa: E402
from export.pack import BundleContent, canonical, folder_bytes, write_bundle  # noqa: E402


def model() -> onnx.ModelProto:
    port = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    other = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "g", [port], [other])
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])


def content() -> BundleContent:
    names = ("camera", "audio", "motion", "fuse")
    return BundleContent(
        {name: model() for name in names},
        dict.fromkeys(names, "fp32"),
        {"scene_tags": ["night"], "sound_events": ["siren"], "objects": ["vehicle"]},
        {"scene_tags": [0.5], "sound_events": [0.5], "objects": 0.4},
        {"ap": 1 / 3, "absent": float("nan")},
        {"seed": 1},
    )


def test_the_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    write_bundle(tmp_path / "a", content())
    write_bundle(tmp_path / "b", content())
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == ["audio.onnx", "camera.onnx", "fuse.onnx", "manifest.json", "motion.onnx"]
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_the_manifest_names_digests_ports_and_state(tmp_path: Path) -> None:
    write_bundle(tmp_path, content())
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert (
        manifest["encoders"]["camera"]["sha256"] == hashlib.sha256((tmp_path / "camera.onnx").read_bytes()).hexdigest()
    )
    assert manifest["encoders"]["camera"]["input"]["layout"] == "NHWC"
    assert manifest["fuse"]["inputs"] == ["camera", "audio", "motion"]
    assert manifest["fuse"]["state"] == {"state": "state_next"}
    assert set(manifest["fuse"]["outputs"]) == {"embedding", "scene_tags", "sound_events", "scores"}


def test_floats_are_short_and_nan_is_null() -> None:
    assert canonical({"b": 1 / 3, "a": float("nan")}) == '{\n  "a": null,\n  "b": 0.33333\n}\n'


def of_the_reference(**changes: Any) -> BundleContent:
    """The reference bundle's content once more."""
    reference = bundle.load()
    engines = {name: onnx.load_from_string(spec.file.read()) for name, spec in reference.engines.items()}
    precisions = {name: spec.precision for name, spec in reference.engines.items()}
    outputs = {name: dict(spec.outputs) for name, spec in reference.engines.items()}
    given: dict[str, Any] = {"figures": {}, "lineage": {"seed": 1}, "outputs": outputs, **changes}
    return BundleContent(engines, precisions, reference.manifest["heads"], reference.thresholds, **given)


def rescaled(model: onnx.ModelProto) -> onnx.ModelProto:
    """A twin with the same int8 weights and other scales, as another runtime's lowering is."""
    twin = onnx.ModelProto()
    twin.CopyFrom(model)
    for tensor in twin.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and values.ndim == 0:
            tensor.CopyFrom(onnx.numpy_helper.from_array(values * np.float32(1.001), tensor.name))
    return twin


def test_lowerings_cost_little_and_golden_vectors_hold(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = of_the_reference()
    twins = {name: {"trt": rescaled(plain.engines[name])} for name in ("camera", "audio")}
    write_bundle(tmp_path / "plain", plain)
    inputs = golden.made_inputs(bundle.load(tmp_path / "plain"))
    content = of_the_reference(lowerings=twins, golden=inputs, confidence={"temperature": {"scene_tags": 1.0123456789}})
    write_bundle(tmp_path / "whole", content)
    loaded = bundle.load(tmp_path / "whole")
    for name, targets in twins.items():
        lowering = loaded.encoders[name].lowerings["trt"]
        assert lowering.read() == targets["trt"].SerializeToString(deterministic=True)
        assert lowering.path.stat().st_size < loaded.encoders[name].path.stat().st_size / 20
    assert loaded.confidence == {"temperature": {"scene_tags": 1.0123456789}}  # not rounded
    assert roadfuse(["bundle", "verify", str(tmp_path / "whole"), "--target", "all"]) == 0
    grown = folder_bytes(tmp_path / "whole") - folder_bytes(tmp_path / "plain")
    assert grown < (tmp_path / "whole/golden.npz").stat().st_size + 120_000


def test_writing_again_leaves_nothing_of_the_bundle_before(tmp_path: Path) -> None:
    lowerings = {"camera": {"trt": rescaled(of_the_reference().engines["camera"])}}
    write_bundle(tmp_path, of_the_reference(lowerings=lowerings))
    (tmp_path / "notes.txt").write_text("mine")
    write_bundle(tmp_path, of_the_reference())
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {
        "audio.onnx",
        "camera.onnx",
        "fuse.onnx",
        "lidar.onnx",
        "manifest.json",
        "motion.onnx",
        "notes.txt",
    }


def test_the_lidar_has_its_place_in_the_contract(tmp_path: Path) -> None:
    content = BundleContent({"lidar": model()}, {"lidar": "fp32"}, {}, {}, {}, {})
    manifest = write_bundle(tmp_path, content)
    assert "fuse" not in manifest
    loaded = bundle.load(tmp_path)  # its input is what edge/bundle_check.py takes
    assert loaded.encoders["lidar"].input["columns"] == 256


def test_an_encoder_that_fusion_takes_must_have_an_embedding(tmp_path: Path) -> None:
    write_bundle(tmp_path, of_the_reference())
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    manifest["encoders"]["motion"]["outputs"] = {}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="expected an output embedding of motion, which fuse takes"):
        bundle.load(tmp_path)
