"""The reference bundle through the loop's engines on a simulated GPU, whose networks are ONNX Runtime's.

What is proven: buffers, states, the hand-over between engines and the order of calls are those of the CPU path, bit for
bit. What TensorRT computes is not: that needs a GPU.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edge import bundle as bundles
from edge.bundle import Bundle, EngineSpec
from edge.engine import OrtEngine
from edge.perception import Perception
from edge.streams import SECOND, STREAMS
from edge.trt.library import TensorRt
from tests.edge.frames import START_NS, frame_set, sounds
from tests.edge.simulated_gpu import SimulatedDriver, SimulatedRuntime

_KINDS = {"float32": "FLOAT", "uint8": "UINT8", "int64": "INT64", "bool": "BOOL"}


def _simulated(bundle: Bundle, driver: SimulatedDriver, name: str) -> SimulatedRuntime:
    """One engine of the bundle as a plan."""
    spec = bundle.engines[name]
    engine = OrtEngine(spec.path, spec.model("cpu").read())
    sides = [(True, engine.inputs), (False, engine.outputs)]
    tensors = {
        tensor: (given, _KINDS[array.dtype.name], array.shape)
        for given, side in sides
        for tensor, array in side.items()
    }

    def network(inputs: dict[str, Any]) -> dict[str, Any]:
        for tensor, array in inputs.items():
            np.copyto(engine.inputs[tensor], array)
        engine.run()
        return dict(engine.outputs)

    return SimulatedRuntime(driver, tensors, network)


@pytest.fixture
def driver() -> SimulatedDriver:
    return SimulatedDriver()


@pytest.fixture
def native(driver: SimulatedDriver, monkeypatch: pytest.MonkeyPatch) -> Perception:
    """The reference bundle by `--provider trt`."""
    bundle = bundles.load()
    runtimes = {name.encode(): _simulated(bundle, driver, name) for name in bundle.engines}

    class Runtime:
        def __init__(self, logger: Any) -> None:
            self._logger = logger

        def deserialize_cuda_engine(self, plan: bytes) -> Any:
            return runtimes[plan].Runtime(self._logger).deserialize_cuda_engine(plan)

    module = SimulatedRuntime(driver, {}, None)
    module.Runtime = Runtime
    tensorrt = TensorRt(module, driver, driver.device())
    monkeypatch.setattr("edge.trt.library.open_tensorrt", lambda: tensorrt)
    monkeypatch.setattr("edge.trt.plans.ready_plan", lambda *given: SimpleNamespace(content=given[2].encode()))
    return Perception(bundle, STREAMS, "trt")


def _steps(perception: Perception, frames: int) -> list[bytes]:
    """All that the engines say of some frames of noise, the second of them without sound."""
    random, said = np.random.default_rng(3), []
    for i in range(frames):
        image = random.integers(0, 256, (192, 320, 3), dtype=np.uint8)
        pcm = random.integers(-9999, 9999, 16_000, dtype=np.int16)
        seen = frame_set(image, audio=[] if i == 1 else sounds(pcm, 16_000, 320, START_NS - SECOND))
        present = [perception.present(name, seen) for name in perception.names]
        for name, there in zip(perception.names, present):
            if there:
                perception.encode(name, seen)
        perception.fuse(present)
        said += [out.tobytes() for engine in perception.engines.values() for out in engine.outputs.values()]
    return said


def test_every_tensor_is_that_of_the_cpu_path_bit_for_bit(native: Perception) -> None:
    said = _steps(native, 4)
    assert said == _steps(Perception(bundles.load(), STREAMS), 4)
    assert len(set(said)) > len(said) / 2  # noise that changes changes the answers


def test_a_frozen_state_goes_on_where_it_was(native: Perception) -> None:
    _steps(native, 2)
    frozen = native.freeze()
    after = _steps(native, 3)
    native.thaw(frozen)
    assert _steps(native, 3) == after


def test_fusion_reads_the_embeddings_where_the_encoders_write_them(native: Perception) -> None:
    fuse = native.bundle.fuse
    assert fuse is not None
    for name in fuse.inputs:
        spec = native.bundle.engines[name]
        assert isinstance(spec, EngineSpec)
        assert native.engines["fuse"].inputs[name] is native.encoders[name].outputs[spec.outputs["embedding"]]


def test_a_replaced_bundle_leaves_nothing_on_the_device(native: Perception, driver: SimulatedDriver) -> None:
    assert driver.memory
    for engine in native.engines.values():
        engine.close()  # type: ignore[attr-defined]
    assert driver.memory == {}
    assert driver.streams == {}
