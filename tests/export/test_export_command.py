"""`roadfuse export` as a person runs it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="the export tier is not installed: no onnx")

from calibration.ranges import collect, write_ranges  # noqa: E402
from edge.command import main as roadfuse  # noqa: E402
from edge.errors import ConfigError  # noqa: E402
from export.export_command import main  # noqa: E402
from export.guard import Plan, structure  # noqa: E402
from tests.export import graphs  # noqa: E402


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """camera.onnx with its ranges and inputs, tokens.onnx with its ranges."""
    for name, model, feeds in (
        ("camera", graphs.camera(), graphs.pictures(8)),
        ("tokens", graphs.attention(), graphs.tokens(8)),
    ):
        (tmp_path / f"{name}.onnx").write_bytes(model.SerializeToString())
        write_ranges(tmp_path / f"{name}.json", collect(model.SerializeToString(), feeds))
        np.savez(tmp_path / f"{name}.npz", **{key: np.concatenate([f[key] for f in feeds]) for key in feeds[0]})
    return tmp_path


def run(folder: Path, *words: str) -> int:
    return main([str(folder / word) if "." in word and not word.startswith("-") else word for word in words])


def test_one_call_writes_float_and_all_targets_of_several_models(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "camera.onnx",
        "tokens.onnx",
        "--ranges",
        "tokens.json",
        "camera.json",
        "--json",
        "--out",
        str(folder / "o"),
    ]
    assert run(folder, *words) == 0
    results = json.loads(capsys.readouterr().out)
    files = {path.name for path in (folder / "o").iterdir()}
    assert files == {f"{name}{kind}.onnx" for name in ("camera", "tokens") for kind in ("", ".trt", ".x86", ".arm")}
    assert [set(result["files"]) for result in results] == [{"float", "trt", "x86", "arm"}] * 2
    first = (folder / "o" / "camera.trt.onnx").read_bytes()
    assert run(folder, *words) == 0
    assert (folder / "o" / "camera.trt.onnx").read_bytes() == first


def test_without_ranges_only_the_canonical_float_graph_is_written(folder: Path) -> None:
    assert run(folder, "camera.onnx", "--out", str(folder / "o")) == 0
    assert [path.name for path in (folder / "o").iterdir()] == ["camera.onnx"]


def test_with_inputs_it_measures_and_reports_layer_by_layer(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["camera.onnx", "--ranges", "camera.json", "--inputs", "camera.npz", "--out", str(folder / "o")]
    assert run(folder, *words, "--sensitivity") == 0
    said = capsys.readouterr().out
    assert "x86 and trt: head_out at most" in said
    assert "only it in int8, all but it" in said
    layers = json.loads((folder / "o" / "camera.sensitivity.json").read_text())
    assert [layer["node"] for layer in layers] == ["first", "inner", "far", "lateral", "blend", "head"]


def test_a_plan_keeps_its_nodes_float(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = Plan(structure(graphs.camera()), {"head": "latency: measured"}, {})
    (folder / "plan.json").write_text(plan.to_json())
    words = ["camera.onnx", "--ranges", "camera.json", "--plan", "plan.json", "--out", str(folder / "o"), "--json"]
    assert run(folder, *words) == 0
    (result,) = json.loads(capsys.readouterr().out)
    assert result["floats"] == {"head": "latency: measured"}
    assert "head" not in result["int8"]


def test_the_guard_writes_its_plan(folder: Path) -> None:
    words = ["camera.onnx", "--ranges", "camera.json", "--inputs", "camera.npz", "--out", str(folder / "o")]
    assert run(folder, *words, "--guard", "--min-db", "20", "--target", "x86", "--machine", "here") == 0
    plan = json.loads((folder / "o" / "camera.plan.json").read_text())
    assert plan["measured"]["machine"] == "here"


def test_the_guard_is_not_left_out_for_a_model_without_inputs(folder: Path) -> None:
    words = ["camera.onnx", "tokens.onnx", "--ranges", "camera.json", "tokens.json", "--inputs", "camera.npz"]
    for option in ("--guard", "--sensitivity"):
        with pytest.raises(ConfigError, match="expected --inputs of each model with ranges, got no tokens"):
            run(folder, *words, option, "--out", str(folder / "o"))
    assert not (folder / "o").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ["camera.onnx", "--ranges", "tokens.json"],
            r"tokens.json: expected ranges of the model \w+ \(camera\), got those of",
        ),
        (["camera.onnx", "--ranges", "camera.json", "--target", "x86,tpu"], "--target: expected a list of"),
        (["camera.onnx", "--ranges", "camera.onnx"], "camera.onnx: "),
        (["camera.json"], "camera.json: expected an ONNX model"),
        (["camera.onnx", "camera.onnx"], "expected different names"),
        (["camera.onnx", "--ranges", "camera.json", "--guard"], "expected --ranges and --inputs"),
        (["camera.onnx", "--ranges", "camera.json", "--inputs", "tokens.npz"], "--inputs: expected files named like"),
        (["camera.onnx", "--ranges", "camera.json", "--inputs", "o/camera.npz"], "camera.npz: expected the inputs of"),
        (["camera.onnx", "--ranges", "camera.json", "--inputs", "camera.json"], "camera.json: expected inputs"),
        (["camera.onnx", "--ranges", "camera.json", "--plan", "foreign.json"], "expected a plan of the graph"),
        (["camera.onnx", "--ranges", "camera.json", "--inputs", "cut/camera.npz"], "camera.npz: expected inputs"),
        (["camera.onnx", "--ranges", "camera.json", "--inputs", "one/camera.npz"], "camera.npz: expected inputs"),
        (["camera.onnx", "--ranges", "camera.json", "--inputs", "wide/camera.npz"], "camera.npz: .*uint8.*float64"),
        (["weights.npz"], "weights.npz: expected the weights of this network"),
        (["cut/camera.npz"], "camera.npz: expected the weights of this network"),
        (["one/camera.npz"], "camera.npz: expected the weights of this network"),
        (["camera.onnx", "--samples=-1"], "--samples: expected at least 1, got -1"),
        (["old.onnx"], "old.onnx: model: expected opset 17 to 20, got 12"),
    ],
)
def test_bad_input_is_refused_in_one_line(folder: Path, words: list[str], says: str) -> None:
    old = graphs.camera()
    old.opset_import[0].version = 12
    (folder / "old.onnx").write_bytes(old.SerializeToString())
    (folder / "foreign.json").write_text(Plan("0" * 64, {}, {}).to_json())
    (folder / "o").mkdir()
    np.savez(folder / "o" / "camera.npz", image=np.zeros((2, 8, 8, 3), np.uint8))
    np.savez(folder / "weights.npz", strategy=np.array("late"))
    for kind in ("cut", "one", "wide"):
        (folder / kind).mkdir()
    (folder / "cut" / "camera.npz").write_bytes((folder / "camera.npz").read_bytes()[:-20])
    with (folder / "one" / "camera.npz").open("wb") as file:
        np.save(file, np.zeros(3))
    with np.load(folder / "camera.npz") as inputs:
        np.savez(folder / "wide" / "camera.npz", **{name: inputs[name].astype(np.float64) for name in inputs.files})
    if words[0].endswith(".npz"):
        pytest.importorskip("torch", reason="the export tier is not installed: no torch")
    with pytest.raises(ConfigError, match=says) as caught:
        run(folder, *words, "--out", str(folder / "o"))
    assert "\n" not in str(caught.value)


def test_no_output_takes_the_place_of_an_input(folder: Path) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(ConfigError, match=r"camera\.onnx: expected another file than the input"):
        main([str(folder / "camera.onnx"), "--out", str(folder)])
    assert {name: (folder / name).read_bytes() for name in before} == before


def test_the_dispatcher_turns_bad_input_into_exit_code_2(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert roadfuse(["export", str(folder / "no.onnx"), "--out", str(folder / "o")]) == 2
    assert capsys.readouterr().err.startswith("roadfuse export: no such file: ")
