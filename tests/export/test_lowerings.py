"""Three int8 graphs from one ranges file: each as its runtime wants it, and twins of each other."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="the export tier is not installed: no onnx")

import onnxruntime as ort  # noqa: E402
from onnx import TensorProto, numpy_helper  # noqa: E402

from calibration.canonical import canonical_bytes  # noqa: E402
from calibration.ranges import Ranges, collect  # noqa: E402
from edge.errors import ConfigError  # noqa: E402
from export.lowerings import TARGETS, int8_nodes, lower_to  # noqa: E402
from export.scales import SCALES  # noqa: E402
from tests.export import graphs  # noqa: E402

MODELS = {"camera": (graphs.camera, graphs.pictures), "attention": (graphs.attention, graphs.tokens)}


def made(name: str) -> tuple[onnx.ModelProto, Ranges]:
    build, feeds = MODELS[name]
    model = build()
    return model, collect(model.SerializeToString(), feeds(48))


@pytest.fixture(scope="module", params=sorted(MODELS))
def both(request: pytest.FixtureRequest) -> tuple[str, onnx.ModelProto, Ranges]:
    return request.param, *made(request.param)


@pytest.fixture(scope="module")
def camera() -> tuple[onnx.ModelProto, Ranges]:
    return made("camera")


def values(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def session(model: onnx.ModelProto, optimised: bool = True, path: Path | None = None) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    if not optimised:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    if path is not None:
        options.optimized_model_filepath = str(path)
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def zero_points(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """Zero point by quantised activation."""
    weights = values(model)
    return {n.input[0]: weights[n.input[2]] for n in model.graph.node if n.op_type == "QuantizeLinear"}


def test_trt_gets_int8_with_zero_point_0_and_float_biases(both: tuple[str, onnx.ModelProto, Ranges]) -> None:
    _, model, ranges = both
    lowered = lower_to(model, ranges, "trt")
    weights = values(lowered)
    assert zero_points(lowered)
    assert {(zero.dtype.name, int(zero)) for zero in zero_points(lowered).values()} == {("int8", 0)}
    for node in lowered.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in weights:
            assert weights[node.input[0]].dtype == np.int8  # no int32 bias
            assert not weights[node.input[2]].any()


def test_x86_gets_uint8_with_zero_point_0_behind_a_relu_else_128(both: tuple[str, onnx.ModelProto, Ranges]) -> None:
    _, model, ranges = both
    lowered = lower_to(model, ranges, "x86")
    makers = {name: node for node in lowered.graph.node for name in node.output}
    seen = set()
    for name, zero in zero_points(lowered).items():
        maker = makers.get(name)
        while maker is not None and maker.op_type in ("MaxPool", "Resize"):  # moved: as before
            maker = makers[maker.input[0].removesuffix(".dq")]
        assert zero.dtype == np.uint8
        assert int(zero) == (0 if maker is not None and maker.op_type == "Relu" else 128)
        seen.add(int(zero))
    assert seen == {0, 128}


def test_arm_is_x86_less_128_bit_for_bit(both: tuple[str, onnx.ModelProto, Ranges]) -> None:
    name, model, ranges = both
    x86, arm = (session(lower_to(model, ranges, target), optimised=False) for target in ("x86", "arm"))
    for feed in MODELS[name][1](8, 9):
        for one, other in zip(x86.run(None, feed), arm.run(None, feed)):
            np.testing.assert_array_equal(one, other)
    assert {zero.dtype.name for zero in zero_points(lower_to(model, ranges, "arm")).values()} == {"int8"}


def test_all_targets_share_scales_weights_and_int8_nodes(camera: tuple[onnx.ModelProto, Ranges]) -> None:
    model, ranges = camera
    lowered = {target: values(lower_to(model, ranges, target)) for target in TARGETS}
    shared = {n for n in lowered["trt"] if n.endswith((".scale", ".weight.q")) and ".bias" not in n}
    assert len(shared) > 15
    for target in ("x86", "arm"):
        for name in shared:
            np.testing.assert_array_equal(lowered[target][name], lowered["trt"][name])


def test_trt_and_x86_mean_the_same_within_one_output_quantum(both: tuple[str, onnx.ModelProto, Ranges]) -> None:
    name, model, ranges = both
    feeds = MODELS[name][1](48)
    x86, trt = (session(lower_to(model, ranges, target), optimised=False) for target in ("x86", "trt"))
    for i, port in enumerate(x86.get_outputs()):
        one, other = (np.concatenate([run.run(None, feed)[i] for feed in feeds]) for run in (x86, trt))
        low, high = ranges.bounds[port.name]
        quantum = max(-low, high) / 127
        assert np.abs(one - other).max() <= quantum
        np.testing.assert_array_equal(one.reshape(48, -1).argmax(1), other.reshape(48, -1).argmax(1))


def test_int8_stays_near_float(both: tuple[str, onnx.ModelProto, Ranges]) -> None:
    name, model, ranges = both
    exact, rounded = session(model), session(lower_to(model, ranges, "x86"))
    signal = noise = 0.0
    for feed in MODELS[name][1](16, 9):
        for one, other in zip(exact.run(None, feed), rounded.run(None, feed)):
            signal, noise = signal + float((one**2).sum()), noise + float(((one - other) ** 2).sum())
    assert 0 < noise < signal / 1000  # 30 dB


def test_onnx_runtime_makes_int8_kernels_of_all_int8_nodes(
    both: tuple[str, onnx.ModelProto, Ranges], tmp_path: Path
) -> None:
    name, model, ranges = both
    session(lower_to(model, ranges, "x86"), path=tmp_path / "optimised.onnx")
    kinds = [node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node]
    weighted = [node for node in int8_nodes(model) if any(w in node for w in ("_mul", "qk", "mix"))]
    if name == "camera":
        assert kinds.count("QLinearConv") == 5
        assert kinds.count("Conv") == 1  # the maps
        assert kinds.count("QGemm") == 1
        assert {"QLinearAdd", "QLinearConcat"} <= set(kinds)
    else:
        multiplied = sum(kinds.count(kind) for kind in ("QGemm", "QLinearMatMul", "MatMulIntegerToFloat"))
        assert multiplied == len(weighted) == 8
        assert "MatMul" not in kinds


def test_bytes_are_the_quantum_on_x86_and_float_with_rounded_weights_for_trt(
    camera: tuple[onnx.ModelProto, Ranges],
) -> None:
    model, ranges = camera
    x86, trt = lower_to(model, ranges, "x86"), lower_to(model, ranges, "trt")
    first = next(node for node in x86.graph.node if node.name == "first")
    maker = next(node for node in x86.graph.node if first.input[0] in node.output)
    assert maker.op_type == "DequantizeLinear"
    assert maker.input[0] == "nchw_out"  # the bytes themselves
    assert "Cast" not in {node.op_type for node in x86.graph.node}
    quanta, scales = values(x86)["first.weight.q"], values(x86)["first.weight.scale"]
    np.testing.assert_array_equal(values(trt)["first.weight"], quanta * scales.reshape(-1, 1, 1, 1))


def test_what_is_only_moved_keeps_its_scale(camera: tuple[onnx.ModelProto, Ranges]) -> None:
    model, ranges = camera
    weights = values(lower_to(model, ranges, "x86"))
    assert weights["pool_out.scale"] == weights["residual_out_relu_out.scale"]
    assert weights["wide_out.scale"] == weights["lateral_out_relu_out.scale"]


def test_spectra_depthwise_and_last_convolutions_stay_float() -> None:
    model = graphs.kept_float()
    assert int8_nodes(model) == ("inner",)


def test_nodes_kept_float_are_not_lowered(camera: tuple[onnx.ModelProto, Ranges]) -> None:
    model, ranges = camera
    assert "head" in int8_nodes(model)
    lowered = lower_to(model, ranges, "x86", floats=["head", "far"])
    assert not any(name.startswith(("head.", "far.")) for name in values(lowered))
    assert set(int8_nodes(model)) - {"head", "far"} >= set(int8_nodes(model, ["head", "far"]))


@pytest.mark.parametrize("scales", sorted(SCALES))
def test_twins_stay_twins_where_values_are_cut_off(camera: tuple[onnx.ModelProto, Ranges], scales: str) -> None:
    model, _ = camera
    feeds = graphs.pictures(24)
    ranges = collect(model.SerializeToString(), [{"image": feed["image"] // 2} for feed in feeds])
    targets = ("x86", "arm", "trt")
    runs = [session(lower_to(model, ranges, target, scales=scales), optimised=False) for target in targets]
    found = [[np.concatenate([value.ravel() for value in run.run(None, feed)]) for feed in feeds] for run in runs]
    x86, arm, trt = (np.array(values) for values in found)
    exact = np.array([np.concatenate([v.ravel() for v in session(model).run(None, feed)]) for feed in feeds])
    assert np.abs(exact - x86).max() > 0.05 * np.abs(exact).max()  # much is cut off
    np.testing.assert_array_equal(x86, arm)
    np.testing.assert_allclose(x86, trt, rtol=0, atol=np.abs(x86).max() / 127)


@pytest.mark.parametrize("scales", sorted(SCALES))
def test_scales_stay_within_what_was_seen(camera: tuple[onnx.ModelProto, Ranges], scales: str) -> None:
    model, ranges = camera
    widest, drawn = (values(lower_to(model, ranges, "trt", scales=how)) for how in ("minmax", scales))
    activations = [n for n in drawn if n.endswith("_out.scale")]
    assert activations
    assert all(0 < drawn[name] <= widest[name] for name in activations)


def test_a_channel_of_tiny_weights_keeps_its_bias() -> None:
    b = graphs.Builder()
    b.conv(b.relu(b.conv("x", 3, 4, "a")), 4, 4, "b")
    model = b.model({"x": (TensorProto.FLOAT, [1, 3, 8, 8])}, {"b_out": [1, 4, 8, 8]})
    for tensor in model.graph.initializer:
        if tensor.name in ("a_w", "a_b"):
            array = numpy_helper.to_array(tensor).copy()
            array[1] = 1e-12 if tensor.name == "a_w" else 3.0
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    feeds = [{"x": x[None]} for x in np.random.default_rng(0).normal(size=(8, 3, 8, 8)).astype(np.float32)]
    ranges = collect(model.SerializeToString(), feeds)
    for target in TARGETS:
        exact, rounded = (session(graph).run(None, feeds[0])[0] for graph in (model, lower_to(model, ranges, target)))
        assert np.abs(exact - rounded).max() < 0.05 * np.abs(exact).max()


def changed(model: onnx.ModelProto, **how: object) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    if "opset" in how:
        copy.opset_import[0].version = how["opset"]
    if "dynamic" in how:
        copy.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    if "operator" in how:
        copy.graph.node[0].domain = "com.microsoft"
    if "flow" in how:
        branch = onnx.helper.make_graph([], "b", [], [])
        copy.graph.node.append(onnx.helper.make_node("If", ["c"], ["d"], "if", then_branch=branch, else_branch=branch))
    if "weight" in how:
        tensor = copy.graph.initializer[1]
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * 2, tensor.name))
    return copy


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"opset": 13}, "expected opset 17 to 20, got 13"),
        ({"opset": 21}, "expected opset 17 to 20, got 21"),
        ({"dynamic": 1}, r"expected static shapes, got input image \['batch', 16, 24, 3\]"),
        ({"operator": 1}, r"expected operators of ONNX 17, got com.microsoft.Transpose"),
        ({"flow": 1}, "expected no control flow, got If"),
        ({"weight": 1}, "expected those of the model"),
    ],
)
def test_a_model_that_cant_be_lowered_is_refused_in_one_line(
    camera: tuple[onnx.ModelProto, Ranges], how: dict[str, object], says: str
) -> None:
    model, ranges = camera
    with pytest.raises(ConfigError, match=says) as caught:
        lower_to(changed(model, **how), ranges, "x86")
    assert "\n" not in str(caught.value)


def test_other_mistakes_are_refused_too(camera: tuple[onnx.ModelProto, Ranges]) -> None:
    model, ranges = camera
    with pytest.raises(ConfigError, match="expected one of trt, x86, arm, got 'tpu'"):
        lower_to(model, ranges, "tpu")
    with pytest.raises(ConfigError, match="expected nodes of the model, got 'nobody'"):
        lower_to(model, ranges, "x86", ["nobody"])
    with pytest.raises(ConfigError, match="scales: expected one of"):
        lower_to(model, ranges, "x86", scales="entropy")
    with pytest.raises(ConfigError, match="expected the tensor"):
        lower_to(model, Ranges(ranges.model_sha256, 1, {}), "x86")
    lowered = lower_to(model, ranges, "trt")
    own = collect(lowered.SerializeToString(), graphs.pictures(1))
    with pytest.raises(ConfigError, match="expected a float graph, got one with QuantizeLinear"):
        lower_to(lowered, own, "trt")


SCRIPT = """
import hashlib, sys
from calibration.canonical import canonical, canonical_bytes
from calibration.ranges import collect
from export.lowerings import TARGETS, lower_to
from tests.export import graphs
for build, feeds in ((graphs.camera, graphs.pictures), (graphs.attention, graphs.tokens)):
    model = build()
    model.doc_string = sys.argv[1]
    model.graph.node[0].doc_string = sys.argv[1]
    ranges = collect(model.SerializeToString(), feeds(4))
    print(ranges.id, hashlib.sha256(canonical_bytes(canonical(model))).hexdigest())
    for target in TARGETS:
        print(hashlib.sha256(canonical_bytes(lower_to(model, ranges, target))).hexdigest())
"""


def test_the_same_bytes_from_any_path_user_and_hash_seed(tmp_path: Path) -> None:
    root = str(Path(__file__).resolve().parents[2])
    said = set()
    for i in range(20):
        folder = tmp_path / f"place{i}"
        folder.mkdir()
        environment = {**os.environ, "PYTHONHASHSEED": str(i * 7919), "HOME": str(folder), "USER": f"user{i}"}
        environment["PYTHONPATH"] = root
        words = [sys.executable, "-c", SCRIPT, f"/home/user{i}/model.py"]
        done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=True)
        said.add(done.stdout)
    assert len(said) == 1
    assert len(said.pop().split()) == 10


def test_lowered_bytes_hold_nothing_of_the_exporter(camera: tuple[onnx.ModelProto, Ranges]) -> None:
    model, ranges = camera
    noisy = onnx.ModelProto()
    noisy.CopyFrom(model)
    noisy.producer_name, noisy.doc_string = "/home/me/tool", "made at noon"
    noisy.metadata_props.add(key="path", value="/home/me")
    for node in noisy.graph.node:
        node.doc_string = "/home/me/model.py:3"
        node.metadata_props.add(key="stack_trace", value="/home/me/model.py")
    for target in TARGETS:
        one, other = (canonical_bytes(lower_to(given, ranges, target)) for given in (model, noisy))
        assert hashlib.sha256(one).digest() == hashlib.sha256(other).digest()
        assert b"/home/me" not in other
