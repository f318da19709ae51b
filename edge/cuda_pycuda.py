"""The CUDA driver through pycuda.

pycuda has no stream capture (as of 2026.1), so graphs go to the driver library itself, on pycuda's own handles.

Each thread has a stack of contexts in pycuda. What is made belongs to the one on top, and another thread frees it only
where that same one is on top; a thread that ends with one on its stack aborts the process. So all drivers share one
context, which is on the stack of every thread that opens a driver, until that thread ends.
"""

from __future__ import annotations

import atexit
import ctypes
import threading
import weakref
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Final

import numpy as np
from numpy.typing import DTypeLike, NDArray

from edge.cuda import DeviceInfo
from edge.errors import DeviceError

try:
    import pycuda.driver as cuda
except ImportError as _error:  # its extension links libcuda: without a driver it can't even load
    raise DeviceError(f"CUDA: expected pycuda and an NVIDIA driver, got: {_error}") from None

_NON_BLOCKING: Final = 1  # CU_STREAM_NON_BLOCKING
_THREAD_LOCAL: Final = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
_here: Final = threading.local()  # entered: the context, on this thread's stack


class PycudaDriver:
    """`edge.cuda.Driver` over pycuda.

    Args:
        index: of the GPU.

    Raises:
        DeviceError: no driver, no such GPU.
    """

    def __init__(self, index: int = 0) -> None:
        self._device, context = _primary(index)
        if not hasattr(_here, "entered"):
            _call(context.push)
            _here.entered = _Entered(context)
        self._memory: dict[int, Any] = {}
        self._streams: dict[int, Any] = {}
        self._graphs = _GraphCalls()

    def device(self) -> DeviceInfo:
        """What this GPU is."""
        version = int(cuda.get_driver_version())
        major, minor = self._device.compute_capability()
        return DeviceInfo(
            name=self._device.name(),
            sm=(int(major), int(minor)),
            cuda=(version // 1000, version % 1000 // 10),
            memory_bytes=int(self._device.total_memory()),
        )

    def allocate(self, size_bytes: int) -> int:
        """Device memory, uninitialised."""
        memory = _call(cuda.mem_alloc, size_bytes)
        self._memory[int(memory)] = memory
        return int(memory)

    def free(self, pointer: int) -> None:
        """Give device memory back."""
        _call(self._memory.pop(pointer).free)

    def pinned(self, shape: Sequence[int], dtype: DTypeLike) -> NDArray[Any]:
        """Zeros on pinned pages."""
        array: NDArray[Any] = _call(cuda.pagelocked_empty, tuple(shape), np.dtype(dtype))
        array.fill(0)
        return array

    def copy_in(self, pointer: int, array: NDArray[Any], stream: int) -> None:
        """Queue a copy to the device."""
        _call(cuda.memcpy_htod_async, pointer, array, self._streams[stream])

    def copy_out(self, array: NDArray[Any], pointer: int, stream: int) -> None:
        """Queue a copy to the host."""
        _call(cuda.memcpy_dtoh_async, array, pointer, self._streams[stream])

    def open_stream(self) -> int:
        """A stream that does not wait for the default one."""
        stream = _call(cuda.Stream, _NON_BLOCKING)
        self._streams[int(stream.handle)] = stream
        return int(stream.handle)

    def close_stream(self, stream: int) -> None:
        """Destroy a stream: pycuda does so when the last reference goes."""
        del self._streams[stream]

    def synchronize(self, stream: int) -> None:
        """Wait until all that was queued is done."""
        _call(self._streams[stream].synchronize)

    def capture(self, stream: int, work: Callable[[], None]) -> Any:
        """A graph of what `work` queues."""
        return self._graphs.capture(stream, work)

    def launch_graph(self, graph: Any, stream: int) -> None:
        """Queue a captured graph."""
        self._graphs.call("cuGraphLaunch", graph.handle, ctypes.c_void_p(stream))

    def event(self) -> Any:
        """A point in a stream that can be timed."""
        return _call(cuda.Event)

    def record(self, event: Any, stream: int) -> None:
        """Queue the event."""
        _call(event.record, self._streams[stream])

    def elapsed_ms(self, start: Any, end: Any) -> float:
        """Device time between two events."""
        return float(_call(start.time_till, end))

    def load_module(self, image: bytes) -> Any:
        """A module of a cubin, a fatbin or PTX."""
        return _call(cuda.module_from_buffer, image)

    def function(self, module: Any, name: str) -> Any:
        """A kernel of a module."""
        return _call(module.get_function, name)

    def launch(
        self,
        function: Any,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        arguments: Sequence[np.generic],
        stream: int,
        shared_bytes: int = 0,
    ) -> None:
        """Queue a kernel."""
        _call(function, *arguments, grid=grid, block=block, stream=self._streams[stream], shared=shared_bytes)


class _Graph:
    def __init__(self, calls: _GraphCalls, handle: ctypes.c_void_p) -> None:
        self.handle = handle
        weakref.finalize(self, calls.call, "cuGraphExecDestroy", handle)


class _GraphCalls:
    """Stream capture, from the driver library that pycuda has loaded."""

    def __init__(self) -> None:
        try:
            self._library = ctypes.CDLL("libcuda.so.1")
        except OSError as error:
            raise DeviceError(f"CUDA: expected an NVIDIA driver, got: {error}") from None

    def call(self, name: str, *arguments: Any) -> None:
        status = getattr(self._library, name)(*arguments)
        if status != 0:
            raise DeviceError(f"CUDA: {name} failed with error {status}")

    def capture(self, stream: int, work: Callable[[], None]) -> _Graph:
        queue, graph, ready = ctypes.c_void_p(stream), ctypes.c_void_p(), ctypes.c_void_p()
        self.call("cuStreamBeginCapture_v2", queue, _THREAD_LOCAL)
        try:
            work()
        except BaseException:
            self._library.cuStreamEndCapture(queue, ctypes.byref(graph))  # else the stream would refuse all else
            raise
        self.call("cuStreamEndCapture", queue, ctypes.byref(graph))
        try:
            self.call("cuGraphInstantiateWithFlags", ctypes.byref(ready), graph, ctypes.c_ulonglong(0))
        finally:
            self.call("cuGraphDestroy", graph)
        return _Graph(self, ready)


@cache
def _primary(index: int) -> tuple[Any, Any]:
    """The GPU and its primary context, retained once a process."""
    _call(cuda.init)
    device = _call(cuda.Device, index)
    context = _call(device.retain_primary_context)
    atexit.register(_leave, context)
    return device, context


class _Entered:
    """Pops the context off the thread's stack when it goes, as what a thread holds does when the thread ends."""

    def __init__(self, context: Any) -> None:
        self._context = context

    def __del__(self) -> None:
        self._context.pop()


def _leave(context: Any) -> None:
    """Before pycuda's own end, which wants its stack of contexts empty and would detach a primary one wrongly."""
    vars(_here).clear()
    context.detach()


def _call(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    try:
        return function(*arguments, **options)
    except cuda.Error as error:
        raise DeviceError(f"CUDA: {' '.join(str(error).split())}") from None
