"""`roadfuse calibrate ranges` on simulated drives, with the tensors that the loop itself makes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from calibration.ranges import collect, read_ranges
from calibration.ranges_command import main
from edge.bundle import REFERENCE, load
from edge.errors import ConfigError
from edge.perception import Perception
from edge.streams import STREAMS
from export.world.command import main as simulate


def like(name: str, operator: str = "Relu") -> onnx.ModelProto:
    """A float model with the inputs of one of the reference bundle's engines."""
    engine = Perception(load(), STREAMS).engines[name]
    ports, nodes = [], []
    for port, values in engine.inputs.items():
        kind = helper.np_dtype_to_tensor_dtype(values.dtype)
        ports.append(helper.make_tensor_value_info(port, kind, values.shape))
        nodes.append(helper.make_node("Cast", [port], [f"{port}_float"], to=TensorProto.FLOAT))
        nodes.append(helper.make_node(operator, [f"{port}_float"], [f"{port}_out"]))
    outputs = [helper.make_tensor_value_info(n.output[0], TensorProto.FLOAT, None) for n in nodes[1::2]]
    graph = helper.make_graph(nodes, "g", ports, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return onnx.shape_inference.infer_shapes(model)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two short drives, and float models for camera and audio."""
    path = tmp_path_factory.mktemp("ranges")
    for seed in (5, 6):
        words = [
            "--seed",
            str(seed),
            "--seconds",
            "3",
            "--scenario",
            "demo",
            "--out",
            str(path / f"{seed}.mcap"),
            "--json",
        ]
        assert simulate(words) == 0
    for name in ("camera", "audio"):
        (path / f"{name}.onnx").write_bytes(like(name).SerializeToString())
    return path


def run(folder: Path, model: str, drives: str, out: Path, *words: str) -> int:
    paths = [str(folder / f"{drive}.mcap") for drive in drives.split()]
    return main([str(folder / model), "--drives", *paths, "--out", str(out), *words])


def test_the_ranges_are_those_of_the_tensors_that_it_keeps(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, kept = tmp_path / "r.json", tmp_path / "inputs.npz"
    assert run(folder, "camera.onnx", "5 6", out, "--frames", "12", "--keep", str(kept), "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["engine"], said["chosen"], said["samples"]) == ("camera", 12, 12)
    assert said["frames"] > 60
    pictures = np.load(kept)["image"]
    assert pictures.dtype == np.uint8
    feeds = [{"image": picture[None]} for picture in pictures]
    assert len({picture.tobytes() for picture in pictures}) == 12
    assert collect((folder / "camera.onnx").read_bytes(), feeds).id == read_ranges(out).id == said["id"]


def test_the_same_drives_give_the_same_file(folder: Path, tmp_path: Path) -> None:
    for name in ("a.json", "b.json"):
        assert run(folder, "audio.onnx", "5", tmp_path / name, "--frames", "8") == 0
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_files_of_several_vehicles_merge_in_any_order(folder: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one.json", tmp_path / "two.json"
    run(folder, "audio.onnx", "5", one, "--frames", "8")
    run(folder, "audio.onnx", "6", two, "--frames", "8")
    run(folder, "audio.onnx", "6", tmp_path / "12.json", "--frames", "8", "--merge", str(one))
    run(folder, "audio.onnx", "5", tmp_path / "21.json", "--frames", "8", "--merge", str(two))
    assert (tmp_path / "12.json").read_bytes() == (tmp_path / "21.json").read_bytes()
    assert read_ranges(tmp_path / "12.json").samples == 16


def test_bad_input_is_refused_in_one_line(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.json"
    (tmp_path / "foreign.onnx").write_bytes(b"not a model")
    other = collect((folder / "audio.onnx").read_bytes(), [{"pcm": np.zeros((1, 16000), np.float32)}])
    (tmp_path / "other.json").write_text(other.to_json())
    cases = [
        ([str(tmp_path / "foreign.onnx")], "expected an ONNX model"),
        ([str(REFERENCE), "--engine", "camera"], "expected a float model, got int8"),
        ([str(REFERENCE), "--engine", "radar"], "--engine: expected one of"),
        ([str(REFERENCE)], "--engine: expected one of"),
        ([str(folder / "audio.onnx"), "--engine", "camera"], "expected the inputs of camera"),
        ([str(folder / "camera.onnx"), "--frames", "0"], "expected at least one to choose"),
        ([str(folder / "camera.onnx"), "--frames", "2", "--merge", str(tmp_path / "other.json")], "other.json: "),
    ]
    for words, says in cases:
        with pytest.raises(ConfigError, match=says) as caught:
            main([*words, "--drives", str(folder / "5.mcap"), "--out", str(out)])
        assert "\n" not in str(caught.value)
    assert not out.exists()


def test_no_output_takes_the_place_of_an_input(folder: Path, tmp_path: Path) -> None:
    model, drive = tmp_path / "camera.onnx", tmp_path / "5.mcap"
    for path in (model, drive):
        path.write_bytes((folder / path.name).read_bytes())
    command = [str(model), "--drives", str(drive), "--frames", "2"]
    fine = str(tmp_path / "r.json")
    for words in (["--out", str(model)], ["--out", str(drive)], ["--out", fine, "--keep", str(drive)]):
        with pytest.raises(ConfigError, match="expected another file than the input"):
            main([*command, *words])
    for path in (model, drive):
        assert path.read_bytes() == (folder / path.name).read_bytes()
