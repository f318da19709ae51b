"""A TensorRT plan as an engine: pinned host buffers, device buffers, and one CUDA graph a call.

A call is: copies in, the network, copies out, captured once as a graph and launched as one; then a wait for the stream.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edge.cuda import Driver
from edge.engine import BoundEngine, Tensor
from edge.errors import BundleError, DeviceError
from edge.trt.build import Log

if TYPE_CHECKING:
    import tensorrt as trt

_DTYPES: Final[dict[str, Any]] = {  # by the name of the enum's member, whose number differs between versions
    "FLOAT": np.float32,
    "HALF": np.float16,
    "INT8": np.int8,
    "UINT8": np.uint8,
    "INT32": np.int32,
    "INT64": np.int64,
    "BOOL": np.bool_,
}
_log = logging.getLogger(__name__)


def load_engine(trt: Any, plan: bytes, name: str) -> tuple[trt.Runtime, trt.ICudaEngine]:
    """The engine of a plan, and the runtime that it needs as long as it lives.

    Raises:
        BundleError: TensorRT refuses the plan.
    """
    log = Log(trt)
    runtime = trt.Runtime(log.logger)
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise BundleError(f"{name}: expected a plan that TensorRT loads, got: {log.reason()}")
    return runtime, engine


class TensorRtEngine(BoundEngine):
    """A plan with its buffers.

    Args:
        name: of the engine, for messages.
        plan: built on this device.
        trt: TensorRT's Python module.
        driver: of the GPU.
        buffers: input name -> array to read from, such as another engine's (pinned) output.
        state: input -> output that is copied into it by `advance`; it begins as zeros.
        constants: input -> its value, for good.

    Attributes:
        graph: whether a call is one CUDA graph; else (TensorRT can't be captured with some layers) it is queued anew.

    Raises:
        BundleError: the plan does not load, or its tensors do not fit.
        DeviceError: CUDA refuses memory or the run.
    """

    def __init__(
        self,
        name: str,
        plan: bytes,
        *,
        trt: Any,
        driver: Driver,
        buffers: Mapping[str, Tensor] | None = None,
        state: Mapping[str, str] | None = None,
        constants: Mapping[str, Any] | None = None,
    ) -> None:
        self._runtime, engine = load_engine(trt, plan, name)
        self._driver = driver
        self._context = engine.create_execution_context()
        if self._context is None:
            raise DeviceError(f"{name}: expected memory for TensorRT to run in, got none")
        inputs, outputs = _tensors(trt, engine, self._context, name, driver, buffers or {})
        super().__init__(name, inputs, outputs, state, constants)
        self._stream = driver.open_stream()
        self._pointers: dict[str, int] = {}
        self.close = weakref.finalize(self, _release, driver, self._pointers, self._stream)
        for tensor, array in (*inputs.items(), *outputs.items()):
            self._pointers[tensor] = driver.allocate(max(1, array.nbytes))
            if not self._context.set_tensor_address(tensor, self._pointers[tensor]):
                raise BundleError(f"{name}: expected a tensor {tensor} that TensorRT lets us place, got none")
        self._graph = self._captured()
        self.graph = self._graph is not None

    def run(self) -> None:
        """Compute the outputs of the inputs."""
        if self._graph is None:
            self._enqueue()
        else:
            self._driver.launch_graph(self._graph, self._stream)
        self._driver.synchronize(self._stream)

    def _captured(self) -> Any:
        """The call as a graph; None where TensorRT can't be captured."""
        self._enqueue()  # TensorRT sets up on its first call what must not happen in a capture
        self._driver.synchronize(self._stream)
        try:
            return self._driver.capture(self._stream, self._enqueue)
        except DeviceError as error:
            _log.warning("graph_not_captured engine=%s reason=%s", self._name, error)
            return None

    def _enqueue(self) -> None:
        for name, array in self.inputs.items():
            self._driver.copy_in(self._pointers[name], array, self._stream)
        if not self._context.execute_async_v3(self._stream):
            raise DeviceError(f"{self._name}: expected TensorRT to run the plan, which it refuses")
        for name, array in self.outputs.items():
            self._driver.copy_out(array, self._pointers[name], self._stream)


def _tensors(
    trt: Any,
    engine: trt.ICudaEngine,
    context: trt.IExecutionContext,
    name: str,
    driver: Driver,
    buffers: Mapping[str, Tensor],
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Host arrays of all inputs and outputs; inputs of dynamic shape get their profile's best one."""
    names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    inputs = [tensor for tensor in names if engine.get_tensor_mode(tensor) == trt.TensorIOMode.INPUT]
    for tensor in inputs:
        if -1 in tuple(engine.get_tensor_shape(tensor)):
            context.set_input_shape(tensor, engine.get_tensor_profile_shape(tensor, 0)[1])
    arrays: dict[str, Tensor] = {}
    for tensor in names:
        kind, shape = engine.get_tensor_dtype(tensor).name, tuple(context.get_tensor_shape(tensor))
        if kind not in _DTYPES or -1 in shape:
            raise BundleError(f"{name}: expected tensors of {', '.join(_DTYPES)} and static shape, got {tensor} {kind}")
        dtype, given = np.dtype(_DTYPES[kind]), buffers.get(tensor)
        if given is None:
            arrays[tensor] = driver.pinned(shape, dtype)
        elif (given.shape, given.dtype, given.flags.c_contiguous) != (shape, dtype, True):
            raise BundleError(f"{name}: expected input {tensor} {dtype}{shape}, got {given.dtype}{given.shape}")
        else:
            arrays[tensor] = given
    return {tensor: arrays[tensor] for tensor in inputs}, {
        tensor: array for tensor, array in arrays.items() if tensor not in inputs
    }


def _release(driver: Driver, pointers: dict[str, int], stream: int) -> None:
    driver.close_stream(stream)
    for pointer in pointers.values():
        driver.free(pointer)
