"""A simulated GPU and TensorRT runtime: the rules of ordering and ownership, on the CPU. No proof of speed or of CUDA.

Work that is queued on a stream happens only when somebody waits for the stream, so a missing wait gives old values.
Memory must be freed once and not used after; in a capture nothing runs, and waiting or allocating is refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from edge.cuda import DeviceInfo
from edge.errors import DeviceError

ORIN = DeviceInfo("Simulated Orin", (8, 7), (12, 6), 8 << 30)


class SimulatedDriver:
    """`edge.cuda.Driver` without a GPU.

    Attributes:
        memory: pointer -> content, of what is allocated.
        streams: handle -> what is queued.
        calls: names of what reached the device, in order.
    """

    def __init__(self, info: DeviceInfo = ORIN) -> None:
        self.info = info
        self.memory: dict[int, np.ndarray[Any, Any]] = {}
        self.streams: dict[int, list[Callable[[], None]]] = {}
        self.calls: list[str] = []
        self.refuses = ""  # the name of a call that fails
        self._capturing: int | None = None
        self._next = 0x1000

    def device(self) -> DeviceInfo:
        return self.info

    def allocate(self, size_bytes: int) -> int:
        self._call("allocate", in_capture=False)
        pointer = self._handle()
        self.memory[pointer] = np.full(size_bytes, 0xCD, np.uint8)
        return pointer

    def free(self, pointer: int) -> None:
        self._call("free", in_capture=False)
        del self.memory[pointer]

    def pinned(self, shape: Sequence[int], dtype: Any) -> Any:
        return np.zeros(shape, dtype)

    def copy_in(self, pointer: int, array: Any, stream: int) -> None:
        self._call("copy_in")
        self.queue(stream, lambda: self.write(pointer, array))

    def copy_out(self, array: Any, pointer: int, stream: int) -> None:
        self._call("copy_out")
        self.queue(stream, lambda: np.copyto(array, self.read(pointer, array.dtype, array.shape)))

    def open_stream(self) -> int:
        stream = self._handle()
        self.streams[stream] = []
        return stream

    def close_stream(self, stream: int) -> None:
        del self.streams[stream]

    def synchronize(self, stream: int) -> None:
        self._call("synchronize", in_capture=False)
        queued, self.streams[stream] = self.streams[stream], []
        for work in queued:
            work()

    def capture(self, stream: int, work: Callable[[], None]) -> Any:
        self._call("capture", in_capture=False)
        self._capturing, before, self.streams[stream] = stream, self.streams[stream], []
        try:
            work()
            return self.streams[stream]
        finally:
            self._capturing, self.streams[stream] = None, before

    def launch_graph(self, graph: Any, stream: int) -> None:
        self._call("launch_graph")
        self.streams[stream].extend(graph)

    def event(self) -> Any:
        return []

    def record(self, event: Any, stream: int) -> None:
        self.queue(stream, lambda: event.append(len(self.calls)))

    def elapsed_ms(self, start: Any, end: Any) -> float:
        return float(end[-1] - start[-1])

    def load_module(self, image: bytes) -> Any:
        return image

    def function(self, module: Any, name: str) -> Any:
        return module, name

    def launch(self, function: Any, grid: Any, block: Any, arguments: Any, stream: int, shared_bytes: int = 0) -> None:
        self._call("launch")

    def queue(self, stream: int, work: Callable[[], None]) -> None:
        """What CUDA and TensorRT do with a stream's handle."""
        self.streams[stream].append(work)

    def write(self, pointer: int, array: Any) -> None:
        self.memory[pointer][:] = np.frombuffer(array.tobytes(), np.uint8)

    def read(self, pointer: int, dtype: Any, shape: Any) -> Any:
        return self.memory[pointer].view(dtype).reshape(shape)

    def _call(self, name: str, in_capture: bool = True) -> None:
        if name == self.refuses or (self._capturing is not None and not in_capture):
            raise DeviceError(f"CUDA: {name} failed with CUDA_ERROR_SIMULATED")
        self.calls.append(name)

    def _handle(self) -> int:
        self._next += 0x1000
        return self._next


class SimulatedRuntime:
    """TensorRT's module as `TensorRtEngine` uses it; a plan is a word, the network a function of arrays.

    Args:
        driver: on whose memory and streams it works.
        tensors: name -> (is input, dtype's name, shape as the engine tells it).
        network: inputs by name -> outputs by name.
        builder: a module whose builder to take, such as TensorRT-RTX.
    """

    __version__ = "10.3.0"

    def __init__(self, driver: SimulatedDriver, tensors: dict[str, Any], network: Any, builder: Any = None) -> None:
        self.driver, self.tensors, self.network, self._builder = driver, tensors, network, builder
        self.layers: Any = []  # what the inspector tells
        self.enqueues = 0
        self.refuses = False  # to run
        module = self

        class Runtime:
            def __init__(self, logger: Any) -> None:
                self._logger = logger

            def deserialize_cuda_engine(self, plan: bytes) -> Any:
                if not plan:
                    self._logger.log(_Member("ERROR"), "deserialize: the plan is\nnone")
                    return None
                return _SimulatedEngine(module)

        self.Runtime = Runtime

    class ILogger:
        pass

    class TensorIOMode:
        INPUT, OUTPUT = "INPUT", "OUTPUT"

    class LayerInformationFormat:
        JSON = "JSON"

    def __getattr__(self, name: str) -> Any:
        if self._builder is None:
            raise AttributeError(name)
        return getattr(self._builder, name)


class _Member:
    def __init__(self, name: str) -> None:
        self.name = name


class _SimulatedEngine:
    """ICudaEngine."""

    def __init__(self, module: SimulatedRuntime) -> None:
        self._module = module
        self._names = list(module.tensors)
        self.num_io_tensors = len(self._names)

    def get_tensor_name(self, i: int) -> str:
        return self._names[i]

    def get_tensor_mode(self, name: str) -> str:
        return "INPUT" if self._module.tensors[name][0] else "OUTPUT"

    def get_tensor_dtype(self, name: str) -> _Member:
        return _Member(self._module.tensors[name][1])

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        shape: tuple[int, ...] = self._module.tensors[name][2]
        return shape

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        return [tuple(size if size > 0 else least for size in self.get_tensor_shape(name)) for least in (1, 2, 4)]

    def create_execution_context(self) -> _SimulatedContext:
        return _SimulatedContext(self._module, self)

    def create_engine_inspector(self) -> _SimulatedInspector:
        return _SimulatedInspector(self._module.layers)


class _SimulatedContext:
    """IExecutionContext: reads and writes the device memory that it was given, when its stream comes to it."""

    def __init__(self, module: SimulatedRuntime, engine: _SimulatedEngine) -> None:
        self._module, self._engine = module, engine
        self._shapes = {name: engine.get_tensor_shape(name) for name in module.tensors}
        self._addresses: dict[str, int] = {}

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        given = dict(zip(self._shapes[name], shape))
        self._shapes = {
            key: tuple(given.get(size, size) if size < 0 else size for size in value)
            for key, value in self._shapes.items()
        }
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self._shapes[name]

    def set_tensor_address(self, name: str, pointer: int) -> bool:
        self._addresses[name] = pointer
        return name in self._shapes

    def execute_async_v3(self, stream: int) -> bool:
        module, driver = self._module, self._module.driver
        if module.refuses:
            return False

        def work() -> None:
            module.enqueues += 1
            arrays = {
                name: driver.read(self._addresses[name], _NUMPY[kind], self._shapes[name])
                for name, (_, kind, _) in module.tensors.items()
            }
            inputs = {name: arrays[name] for name, (given, *_) in module.tensors.items() if given}
            for name, values in module.network(inputs).items():
                arrays[name][...] = values

        driver.queue(stream, work)
        return True


class _SimulatedInspector:
    def __init__(self, layers: Any) -> None:
        self._layers = layers

    def get_engine_information(self, kind: str) -> str:
        return self._layers if isinstance(self._layers, str) else json.dumps({"Layers": self._layers})


_NUMPY = {"FLOAT": np.float32, "UINT8": np.uint8, "INT64": np.int64, "BOOL": np.bool_}
