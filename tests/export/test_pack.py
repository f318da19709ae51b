"""The manifest is canonical and holds what the vehicle checks."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

onnx = pytest.importorskip("onnx", reason="the export tier is not installed: no onnx")

from export.pack import BundleContent, canonical, write_bundle  # noqa: E402


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
