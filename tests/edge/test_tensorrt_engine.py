"""The TensorRT engine on a simulated GPU: what is queued, when it is waited for, what is freed. No GPU is involved."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest

from edge.errors import BundleError, DeviceError
from edge.trt.engine import TensorRtEngine
from tests.edge.simulated_gpu import SimulatedDriver, SimulatedRuntime

TENSORS = {
    "sound": (True, "FLOAT", (1, 4)),
    "count": (True, "FLOAT", (1, 1)),
    "step": (True, "INT64", ()),
    "loudness": (False, "FLOAT", (1, 1)),
    "count_next": (False, "FLOAT", (1, 1)),
}


def listen(given: dict[str, Any]) -> dict[str, Any]:
    return {"loudness": given["sound"].mean(), "count_next": given["count"] + given["step"]}


@pytest.fixture
def driver() -> SimulatedDriver:
    return SimulatedDriver()


@pytest.fixture
def trt(driver: SimulatedDriver) -> SimulatedRuntime:
    return SimulatedRuntime(driver, TENSORS, listen)


def engine(trt: SimulatedRuntime, plan: bytes = b"plan", **options: Any) -> TensorRtEngine:
    return TensorRtEngine("audio", plan, trt=trt, driver=trt.driver, **options)


def test_a_run_gives_the_outputs_of_the_inputs(trt: SimulatedRuntime) -> None:
    made = engine(trt, constants={"step": 2})
    for loudness in (1.0, 5.0, -3.0):
        made.inputs["sound"][...] = loudness
        made.run()
        assert made.outputs["loudness"] == loudness
        assert made.outputs["count_next"] == 2


def test_a_gpu_that_refuses_a_run_is_no_fault_of_the_model(trt: SimulatedRuntime) -> None:
    made = engine(trt)
    trt.driver.refuses = "launch_graph"
    with pytest.raises(DeviceError, match=r"^CUDA: launch_graph failed with CUDA_ERROR_SIMULATED$"):
        made.warm_up(1)
    trt.driver.refuses = ""
    made.warm_up(1)


def test_a_run_is_one_graph_and_one_wait(trt: SimulatedRuntime) -> None:
    made = engine(trt)
    assert made.graph
    trt.driver.calls.clear()
    made.run()
    made.run()
    assert trt.driver.calls == ["launch_graph", "synchronize"] * 2


def test_the_graph_is_captured_once_after_one_plain_call(trt: SimulatedRuntime) -> None:
    made = engine(trt)
    once = ["copy_in"] * len(made.inputs) + ["copy_out"] * len(made.outputs)
    assert trt.driver.calls == ["allocate"] * 5 + once + ["synchronize", "capture"] + once
    assert trt.enqueues == 1  # a captured call does not run


def test_an_engine_that_cant_be_captured_runs_without_graph(
    trt: SimulatedRuntime, caplog: pytest.LogCaptureFixture
) -> None:
    trt.driver.refuses = "capture"
    made = engine(trt)
    assert not made.graph
    assert "graph_not_captured engine=audio" in caplog.text
    made.inputs["sound"][...] = 7
    made.run()
    assert made.outputs["loudness"] == 7


def test_buffers_stay_where_they_are(trt: SimulatedRuntime) -> None:
    made = engine(trt)
    before = {name: array.ctypes.data for name, array in (*made.inputs.items(), *made.outputs.items())}
    made.run()
    assert {name: array.ctypes.data for name, array in (*made.inputs.items(), *made.outputs.items())} == before


def test_the_state_advances_resets_freezes_and_thaws(trt: SimulatedRuntime) -> None:
    made = engine(trt, state={"count": "count_next"}, constants={"step": 1})
    for _ in range(3):
        made.run()
        made.advance()
    assert made.inputs["count"] == 3
    frozen = made.freeze()
    made.reset()
    assert made.inputs["count"] == 0
    made.thaw(frozen)
    made.run()
    assert made.outputs["count_next"] == 4


def test_warming_up_does_not_advance_the_state(trt: SimulatedRuntime) -> None:
    made = engine(trt, state={"count": "count_next"}, constants={"step": 1})
    made.warm_up(5)
    assert made.inputs["count"] == 0


def test_an_engine_reads_anothers_output_where_it_lies(driver: SimulatedDriver) -> None:
    first = engine(SimulatedRuntime(driver, TENSORS, listen), constants={"step": 1})
    second = engine(SimulatedRuntime(driver, TENSORS, listen), buffers={"count": first.outputs["count_next"]})
    assert second.inputs["count"] is first.outputs["count_next"]
    first.run()
    second.run()
    assert second.outputs["count_next"] == 1


def test_a_buffer_of_another_shape_is_refused(trt: SimulatedRuntime) -> None:
    with pytest.raises(BundleError, match=r"^audio: expected input count float32\(1, 1\), got float32\(1, 2\)$"):
        engine(trt, buffers={"count": np.zeros((1, 2), np.float32)})


def test_a_dynamic_shape_runs_at_its_profiles_best(driver: SimulatedDriver) -> None:
    tensors = {"x": (True, "FLOAT", (-1, 3)), "y": (False, "FLOAT", (-1, 3))}
    made = engine(SimulatedRuntime(driver, tensors, lambda given: {"y": given["x"] * 2}))
    made.inputs["x"][...] = 4
    made.run()
    assert made.outputs["y"].shape == (2, 3)
    assert (made.outputs["y"] == 8).all()


@pytest.mark.parametrize("how", ["closed", "collected"])
def test_all_that_was_allocated_is_freed_once(trt: SimulatedRuntime, how: str) -> None:
    made = engine(trt)
    assert len(trt.driver.memory) == 5
    if how == "closed":
        made.close()
        made.close()
    del made
    gc.collect()
    assert trt.driver.memory == {}
    assert trt.driver.streams == {}


@pytest.mark.parametrize("refused", ["allocate", "copy_in", "synchronize"])
def test_nothing_leaks_where_cuda_refuses_to_begin(trt: SimulatedRuntime, refused: str) -> None:
    trt.driver.refuses = refused
    with pytest.raises(DeviceError, match=f"^CUDA: {refused} failed"):
        engine(trt)
    trt.driver.refuses = ""
    gc.collect()
    assert trt.driver.memory == {}
    assert trt.driver.streams == {}


def test_a_failing_call_is_an_error_of_the_device(trt: SimulatedRuntime) -> None:
    made = engine(trt)
    trt.driver.refuses = "launch_graph"
    with pytest.raises(DeviceError, match="launch_graph failed"):
        made.run()


def test_a_plan_that_tensorrt_refuses_to_run_is_one_line(trt: SimulatedRuntime) -> None:
    trt.refuses = True
    with pytest.raises(DeviceError, match=r"^audio: expected TensorRT to run the plan, which it refuses$"):
        engine(trt)


def test_a_plan_that_tensorrt_does_not_load_is_one_line(trt: SimulatedRuntime) -> None:
    with pytest.raises(
        BundleError, match=r"^audio: expected a plan that TensorRT loads, got: deserialize: the plan is none$"
    ):
        engine(trt, plan=b"")


@pytest.mark.parametrize(("kind", "shape"), [("FP8", (1, 4)), ("BF16", (1, 4))])
def test_a_tensor_of_a_type_that_numpy_lacks_is_refused(driver: SimulatedDriver, kind: str, shape: Any) -> None:
    tensors = {"x": (True, kind, shape), "y": (False, "FLOAT", (1,))}
    with pytest.raises(BundleError, match=f"got x {kind}$"):
        engine(SimulatedRuntime(driver, tensors, listen))


@pytest.mark.parametrize("state", [{"count": "loudness_"}, {"sound": "loudness"}])
def test_a_state_that_does_not_fit_is_refused(trt: SimulatedRuntime, state: dict[str, str]) -> None:
    with pytest.raises(BundleError, match=r"^audio: expected "):
        engine(trt, state=state)
