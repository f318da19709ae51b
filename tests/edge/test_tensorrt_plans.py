"""`roadfuse build`: plans by TensorRT-RTX's builder, read back by a simulated runtime (a real one needs a GPU)."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from edge import bundle as bundles
from edge.bundle import Bundle
from edge.command import main as roadfuse
from edge.errors import BundleError, DeviceError
from edge.perception import Perception
from edge.streams import STREAMS
from edge.trt import command, plans
from edge.trt.build import BuiltPlan
from edge.trt.library import TensorRt, check_version
from edge.trt.onnx_plan import read_plan
from edge.trt.plan_cache import PlanCache
from edge.trt.plans import ready_plan
from edge.updates import selftest
from tests.edge.models import bundle_folder
from tests.edge.quantised_models import INT8_NODES, classifier, floats
from tests.edge.simulated_gpu import SimulatedDriver, SimulatedRuntime

# TensorRT-RTX has timing caches in name only, and says so.
pytestmark = pytest.mark.filterwarnings("ignore:.*Timing cache operations are no-ops:DeprecationWarning")


def _layer(node: str, kind: str) -> dict[str, Any]:
    """A library kernel as TensorRT 10's inspector tells it."""
    return {
        "Name": node,
        "LayerType": "CaskConvolution",
        "Inputs": [{"Name": "in", "Dimensions": [1, 16, 16, 16], "Format/Datatype": f"Row major {kind} format"}],
        "Weights": {"Type": kind, "Count": 2304},
        "Metadata": f"[ONNX Layer: {node}]\x1e[ONNX Layer: {node}_relu]",
    }


@pytest.fixture
def tensorrt() -> TensorRt:
    rtx = pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed (extra rtx)")
    driver = SimulatedDriver()
    runtime = SimulatedRuntime(driver, {}, None, rtx)
    runtime.ILogger = rtx.ILogger  # type: ignore[misc]
    runtime.layers = [_layer(node, "Int8") for node in INT8_NODES]
    return TensorRt(runtime, driver, driver.device())


@pytest.fixture
def cache(tmp_path: Path) -> PlanCache:
    return PlanCache(tmp_path / "plans")


def _bundle(folder: Path, model: bytes, **encoder: Any) -> Bundle:
    """A bundle of one camera encoder; tensors are of no concern here."""
    made = bundle_folder(folder, encoder={"sha256": hashlib.sha256(model).hexdigest(), **encoder})
    (made / "camera.onnx").write_bytes(model)
    return bundles.load(made)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return _bundle(tmp_path / "bundle", classifier(), precision="int8")


def test_a_plan_is_built_once_and_then_cached(tensorrt: TensorRt, bundle: Bundle, cache: PlanCache) -> None:
    built = ready_plan(tensorrt, bundle, "camera", cache)
    again = ready_plan(tensorrt, bundle, "camera", cache)
    assert (built.state, again.state) == ("built", "cached")
    assert again.content == built.content
    assert built.not_int8 == ()


@pytest.mark.parametrize("part", ["version", "sm", "cuda", "name"])
def test_another_device_or_library_gets_its_own_plan(
    tensorrt: TensorRt, bundle: Bundle, cache: PlanCache, part: str
) -> None:
    ready_plan(tensorrt, bundle, "camera", cache)
    if part == "version":
        tensorrt.trt.__version__ = "11.4.1"
        other = tensorrt
    else:
        changed: Any = {"sm": (8, 6), "cuda": (13, 2), "name": "Another"}
        info = {key: getattr(tensorrt.device, key) for key in ("name", "sm", "cuda", "memory_bytes")}
        other = TensorRt(tensorrt.trt, tensorrt.driver, type(tensorrt.device)(**(info | {part: changed[part]})))
    assert ready_plan(other, bundle, "camera", cache).state == "built"


def test_a_damaged_plan_is_named_and_built_again(tensorrt: TensorRt, bundle: Bundle, cache: PlanCache) -> None:
    built = ready_plan(tensorrt, bundle, "camera", cache)
    raw = bytearray(built.path.read_bytes())
    raw[-1] ^= 1
    built.path.write_bytes(raw)
    again = ready_plan(tensorrt, bundle, "camera", cache)
    assert again.state == "rebuilt"
    assert "expected SHA-256" in again.why
    assert ready_plan(tensorrt, bundle, "camera", cache).state == "cached"


def test_a_damaged_timing_cache_is_dropped(tensorrt: TensorRt, bundle: Bundle, cache: PlanCache) -> None:
    built = ready_plan(tensorrt, bundle, "camera", cache)
    built.path.unlink()
    [timing] = cache.folder.glob("timing-*")
    timing.write_bytes(b"something else")
    assert ready_plan(tensorrt, bundle, "camera", cache).state == "built"
    assert timing.read_bytes().startswith(b"roadfuse plan 1\n")


@pytest.fixture
def builderless(monkeypatch: pytest.MonkeyPatch) -> TensorRt:
    """A builder whose plans are a word: for what becomes of them."""
    driver = SimulatedDriver()
    runtime = SimulatedRuntime(driver, {}, None)
    runtime.layers = [_layer(node, "Int8") for node in INT8_NODES]
    monkeypatch.setattr(
        plans, "build_plan", lambda _, model, name, **options: BuiltPlan(b"plan", read_plan(model, name), b"timings")
    )
    return TensorRt(runtime, driver, driver.device())


def test_a_plan_that_cant_be_kept_is_used_all_the_same(
    builderless: TensorRt, bundle: Bundle, cache: PlanCache, caplog: pytest.LogCaptureFixture
) -> None:
    cache.folder.write_text("a file in the folder's place")
    plan = ready_plan(builderless, bundle, "camera", cache)
    assert plan.content == b"plan"
    assert plan.not_kept.startswith(f"{cache.folder}: expected a folder to keep plans in, got: ")
    assert "plan_not_kept name=timing" in caplog.text and "plan_not_kept name=camera" in caplog.text
    cache.folder.unlink()
    assert ready_plan(builderless, bundle, "camera", cache).not_kept == ""
    assert ready_plan(builderless, bundle, "camera", cache).state == "cached"


def test_a_plan_that_cant_be_kept_is_the_machines_fault_and_not_the_bundles(
    builderless: TensorRt,
    bundle: Bundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(command, "open_tensorrt", lambda: builderless)
    monkeypatch.setattr("edge.trt.library.open_tensorrt", lambda: builderless)
    (tmp_path / "file").write_text("")
    assert command.main([str(bundle.path), "--out", str(tmp_path / "file" / "plans")]) == 1
    assert "roadfuse build: camera is not kept: " in capsys.readouterr().err
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(OSError, match="expected a folder to keep plans in, got: "):
        selftest._build(bundle, "trt")


def test_a_build_that_became_float_is_an_error_with_its_layers(
    tensorrt: TensorRt, bundle: Bundle, cache: PlanCache
) -> None:
    tensorrt.trt.layers = [_layer(node, "FP32") for node in INT8_NODES]
    message = r"^camera: expected 3 layers in int8, TensorRT built none: conv0, conv1, gemm$"
    with pytest.raises(BundleError, match=message):
        ready_plan(tensorrt, bundle, "camera", cache)
    assert not list(cache.folder.glob("camera-*"))  # what is wrong is not kept


def test_a_build_that_became_float_in_part_is_warned_of_each_time(
    tensorrt: TensorRt, bundle: Bundle, cache: PlanCache, caplog: pytest.LogCaptureFixture
) -> None:
    tensorrt.trt.layers = [_layer(node, "FP32" if node == "conv1" else "Int8") for node in INT8_NODES]
    for state in ("built", "cached"):
        caplog.clear()
        plan = ready_plan(tensorrt, bundle, "camera", cache)
        assert (plan.state, plan.not_int8) == (state, ("conv1",))
        assert "layers_not_int8 engine=camera count=1 of=3: conv1" in caplog.text


def test_nodes_in_a_closed_region_are_warned_of_because_nobody_tells(
    tensorrt: TensorRt, bundle: Bundle, cache: PlanCache
) -> None:
    region = _layer("conv0", "FP32") | {"Name": "{ForeignNode[conv0...gemm]}", "LayerType": "Myelin"}
    region["Metadata"] = "".join(f"[ONNX Layer: {node}]" for node in INT8_NODES)
    tensorrt.trt.layers = [region]
    assert ready_plan(tensorrt, bundle, "camera", cache).not_int8 == INT8_NODES


@pytest.mark.parametrize("told", ["no JSON", '{"Layers": ["conv0", "conv1"]}', "{}"])
def test_layers_that_cant_be_read_back_are_an_error(
    tensorrt: TensorRt, bundle: Bundle, cache: PlanCache, told: str
) -> None:
    tensorrt.trt.layers = told
    with pytest.raises(BundleError, match=r"^camera: expected "):
        ready_plan(tensorrt, bundle, "camera", cache)


def test_a_bundle_that_calls_a_float_file_int8_is_refused(tensorrt: TensorRt, tmp_path: Path, cache: PlanCache) -> None:
    claims = _bundle(tmp_path / "bundle", floats(), precision="int8")
    with pytest.raises(BundleError, match=r"^camera: expected layers in int8, as the manifest says, got "):
        ready_plan(tensorrt, claims, "camera", cache)


def test_a_profile_of_the_manifest_is_used(tensorrt: TensorRt, tmp_path: Path, cache: PlanCache) -> None:
    shapes = [[1, 3, 32, 32], [1, 3, 32, 32], [4, 3, 32, 32]]
    dynamic = _bundle(tmp_path / "bundle", classifier(batch="batch"), precision="int8", profiles={"x": shapes})
    assert ready_plan(tensorrt, dynamic, "camera", cache).state == "built"


@pytest.mark.parametrize("profiles", [{"x": [[1], [1]]}, {"x": 3}, ["x"], {"x": [["a"], [1], [1]]}])
def test_a_profile_of_another_form_is_refused(
    tensorrt: TensorRt, tmp_path: Path, cache: PlanCache, profiles: Any
) -> None:
    wrong = _bundle(tmp_path / "bundle", classifier(batch="batch"), precision="int8", profiles=profiles)
    with pytest.raises(BundleError, match=r"^camera: expected profiles of input -> \[least, best, most\] shapes, got "):
        ready_plan(tensorrt, wrong, "camera", cache)


def test_the_command_says_what_was_built(
    tensorrt: TensorRt,
    bundle: Bundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(command, "open_tensorrt", lambda: tensorrt)
    words = [str(bundle.path), "--out", str(tmp_path / "plans")]
    assert command.main([*words, "--engine", "camera"]) == 0
    assert capsys.readouterr().out.endswith(" bytes, 3 of 3 in int8\n")
    assert command.main([*words, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["bundle"] == bundle.id
    assert report["device"] == {"name": "Simulated Orin", "sm": "8.7", "cuda": "12.6"}
    assert report["engines"]["camera"]["state"] == "cached"


def test_the_command_warns_and_fails_where_int8_was_lost(
    tensorrt: TensorRt,
    bundle: Bundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(command, "open_tensorrt", lambda: tensorrt)
    tensorrt.trt.layers = tensorrt.trt.layers[:2]
    assert command.main([str(bundle.path), "--out", str(tmp_path / "plans")]) == 1
    assert "warning: camera: TensorRT did not build in int8: gemm" in capsys.readouterr().err


def test_an_engine_that_the_bundle_lacks_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert roadfuse(["build", str(bundle_folder(tmp_path / "bundle")), "--engine", "sonar"]) == 2
    assert capsys.readouterr().err == "roadfuse build: --engine: expected one of camera, got 'sonar'\n"


def _without_tensorrt() -> None:
    try:
        import tensorrt  # noqa: F401
    except ImportError:
        return
    pytest.skip("TensorRT is installed here")


def test_a_machine_without_tensorrt_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _without_tensorrt()
    assert roadfuse(["build", str(bundle_folder(tmp_path / "bundle"))]) == 2
    said = capsys.readouterr().err
    assert said.startswith("roadfuse build: TensorRT: expected the Python package tensorrt (extra edge-gpu), got: ")
    assert said.count("\n") == 1


def test_the_loop_on_native_tensorrt_says_what_is_missing(tmp_path: Path) -> None:
    _without_tensorrt()
    with pytest.raises(DeviceError, match="expected the Python package tensorrt"):
        Perception(bundles.load(bundle_folder(tmp_path / "bundle")), STREAMS, "trt")


@pytest.mark.parametrize("version", ["10.3.0", "10.16.1.11", "11.4.1"])
def test_supported_versions_pass(version: str) -> None:
    check_version(version)


@pytest.mark.parametrize("version", ["8.6.1", "10.2.0", "12.0.0", "none"])
def test_other_versions_are_refused(version: str) -> None:
    with pytest.raises(
        DeviceError, match=rf"^TensorRT: expected a version of 10\.3 or newer, below 12, got {version}$"
    ):
        check_version(version)
