"""Plans, built for real by TensorRT-RTX through the code that a device runs."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest

from edge import bundle as bundles
from edge.bundle import REFERENCE
from edge.errors import BundleError
from edge.trt.build import Profile, build_plan
from edge.trt.layers import not_int8
from edge.trt.onnx_plan import read_plan
from tests.edge.quantised_models import INT8_NODES, classifier, floats, single
from tests.edge.rtx import Builds, rtx

ENGINES = sorted(bundles.load(REFERENCE).engines)
PROCESSES = int(os.environ.get("ROADFUSE_PLAN_PROCESSES", "3"))
# In a thread of its own, whose heap has no history: TensorRT-RTX tells a net's outputs in the order of their addresses.
_ONE_PLAN = """
import hashlib, sys, threading, tensorrt_rtx_bindings as rtx
from edge import bundle
from edge.trt.build import build_plan

def build():
    model = bundle.load(bundle.REFERENCE).engines[sys.argv[1]].model("trt").read()
    print(hashlib.sha256(build_plan(rtx, model, "net").content).hexdigest())

thread = threading.Thread(target=build)
thread.start()
thread.join()
"""


@pytest.mark.parametrize("name", ENGINES)
def test_every_engine_of_the_reference_bundle_that_tensorrt_can_take_builds(name: str) -> None:
    builds, model = Builds(), bundles.load(REFERENCE).engines[name].model("trt").read()
    built = build_plan(builds, model, name)
    assert len(built.content) > 10_000
    assert not_int8(built.asked.int8, builds.layers()) == ()


@pytest.mark.parametrize("name", ["audio", "camera", "lidar"])
def test_an_int8_engine_that_is_not_lowered_for_tensorrt_is_refused_by_name(name: str) -> None:
    with pytest.raises(BundleError, match=rf"^{name}: expected int8 with zero point 0 \(a trt lowering\), got "):
        build_plan(rtx, bundles.load(REFERENCE).engines[name].file.read(), name)


def test_a_lowered_model_builds_with_all_its_nodes_in_int8() -> None:
    lowerings, ranges = pytest.importorskip("export.lowerings"), pytest.importorskip("calibration.ranges")
    float_model = onnx.load_from_string(floats())
    frames = [{"x": np.random.default_rng(i).normal(size=(1, 3, 16, 16)).astype(np.float32)} for i in range(3)]
    lowered = lowerings.lower_to(float_model, ranges.collect(floats(), frames), "trt").SerializeToString()
    builds = Builds()
    built = build_plan(builds, lowered, "net")
    assert built.asked.int8 == lowerings.int8_nodes(float_model) != ()
    assert not_int8(built.asked.int8, builds.layers()) == ()


def test_what_was_asked_for_in_int8_is_built_in_int8() -> None:
    builds = Builds()
    built = build_plan(builds, classifier(), "net")
    assert built.asked.int8 == INT8_NODES
    assert not_int8(INT8_NODES, builds.layers()) == ()


def test_a_float_build_of_the_same_nodes_is_found_out() -> None:
    """conv0 and conv1 as TensorRT builds them where nothing is quantised, beside a file that asks for int8."""
    builds = Builds()
    build_plan(builds, floats(), "net")
    assert not_int8(("conv0", "conv1"), builds.layers()) == ("conv0", "conv1")


@pytest.mark.parametrize("name", ENGINES)
def test_plans_are_the_same_bytes_from_every_process(name: str, tmp_path: Path) -> None:
    """Whatever the hash seed, the folder and the size of the environment."""

    def plan(seed: int) -> str:
        folder = tmp_path / ("x" * seed + "y")
        folder.mkdir()
        root = str(Path(__file__).parents[2])
        environment = {"PYTHONHASHSEED": str(seed), "PYTHONPATH": root, "PADDING": "x" * 977 * seed}
        command = [sys.executable, "-c", _ONE_PLAN, name]
        done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=True)
        return done.stdout

    with ThreadPoolExecutor(2) as pool:
        digests = set(pool.map(plan, range(PROCESSES)))
    assert len(digests) == 1
    assert len(digests.pop().strip()) == 64


def test_a_timing_cache_is_made_used_and_dropped_when_it_is_none() -> None:
    first = build_plan(rtx, classifier(), "net", timing=b"")
    assert first.timing
    again = build_plan(rtx, classifier(), "net", timing=first.timing)
    damaged = build_plan(rtx, classifier(), "net", timing=b"no timing cache")
    assert len(again.content) == len(damaged.content) == len(first.content)
    assert build_plan(rtx, classifier(), "net").timing == b""


def test_a_profile_makes_a_dynamic_shape_buildable() -> None:
    profile = Profile((1, 3, 32, 32), (1, 3, 32, 32), (4, 3, 32, 32))
    built = build_plan(rtx, classifier(batch="batch"), "net", profiles={"x": profile})
    assert built.asked.int8 == INT8_NODES


def test_a_dynamic_shape_without_profile_is_one_line() -> None:
    with pytest.raises(BundleError, match=r"^net: expected static shapes or a profile, got input x \?x3x32x32$"):
        build_plan(rtx, classifier(batch="batch"), "net")


@pytest.mark.parametrize(
    "profile",
    [
        Profile((2, 3, 32, 32), (1, 3, 32, 32), (4, 3, 32, 32)),
        Profile((1, 3, 32, 32), (1, 3, 32, 32), (4, 3, 64, 64)),
        Profile((1, 3, 32), (1, 3, 32), (4, 3, 32)),
        Profile((0, 3, 32, 32), (1, 3, 32, 32), (4, 3, 32, 32)),
    ],
)
def test_a_profile_that_does_not_fit_is_one_line(profile: Profile) -> None:
    with pytest.raises(BundleError, match=r"^net: expected a profile of x \?x3x32x32 with least <= best <= most, got "):
        build_plan(rtx, classifier(batch="batch"), "net", profiles={"x": profile})


def test_a_profile_of_another_input_is_one_line() -> None:
    profile = Profile((1,), (1,), (1,))
    with pytest.raises(BundleError, match=r"^net: expected profiles of inputs x, got z$"):
        build_plan(rtx, classifier(), "net", profiles={"z": profile})


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (single("Det"), "Det only: an operator or a use of it that this TensorRT does not support"),
        (single("Unheard", "somebody"), "Unheard only: .*Plugin not found"),
    ],
)
def test_an_operator_that_tensorrt_lacks_is_named_with_its_node(model: bytes, says: str) -> None:
    with pytest.raises(BundleError, match=f"^net: expected a model that TensorRT parses, got: {says}") as caught:
        build_plan(rtx, model, "net")
    assert "\n" not in str(caught.value)


def test_a_uint8_quantiser_would_pass_tensorrts_own_parser() -> None:
    """Why `read_plan` looks before TensorRT does: the parser reads uint8 with zero point 0 as int8."""
    builder = rtx.Builder(rtx.Logger(rtx.Logger.INTERNAL_ERROR))
    network = builder.create_network(1 << int(rtx.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = rtx.OnnxParser(network, rtx.Logger(rtx.Logger.INTERNAL_ERROR))
    assert parser.parse(classifier(kind=np.uint8))
    kinds = {network.get_layer(i).get_output(0).dtype.name for i in range(network.num_layers)}
    assert "INT8" in kinds and "UINT8" not in kinds
    with pytest.raises(BundleError, match="of uint8"):
        read_plan(classifier(kind=np.uint8), "net")


def test_plans_of_different_models_differ() -> None:
    plans = {hashlib.sha256(build_plan(rtx, model, "net").content).digest() for model in (classifier(), floats())}
    assert len(plans) == 2
