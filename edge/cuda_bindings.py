"""The CUDA driver through NVIDIA's cuda-bindings: wheels for x86 and aarch64, nothing to compile."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from cuda.bindings import driver as api
from numpy.typing import DTypeLike, NDArray

from edge.cuda import DeviceInfo
from edge.errors import DeviceError


class BindingsDriver:
    """`edge.cuda.Driver` over cuda-bindings.

    Args:
        index: of the GPU.

    Raises:
        DeviceError: no driver, no such GPU.
    """

    def __init__(self, index: int = 0) -> None:
        try:
            _call(api.cuInit, 0)
        except RuntimeError as error:  # cuda-bindings finds no libcuda
            raise DeviceError(f"CUDA: expected an NVIDIA driver, got: {' '.join(str(error).split())}") from None
        self._device = _call(api.cuDeviceGet, index)
        self._context = _call(api.cuDevicePrimaryCtxRetain, self._device)
        _call(api.cuCtxSetCurrent, self._context)
        weakref.finalize(self, api.cuDevicePrimaryCtxRelease, self._device)

    def device(self) -> DeviceInfo:
        """What this GPU is."""
        attributes = api.CUdevice_attribute
        major, minor = (
            int(_call(api.cuDeviceGetAttribute, attribute, self._device))
            for attribute in (
                attributes.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
                attributes.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
            )
        )
        name = _call(api.cuDeviceGetName, 256, self._device)
        version = int(_call(api.cuDriverGetVersion))
        return DeviceInfo(
            name=name.split(b"\0")[0].decode(errors="replace"),
            sm=(major, minor),
            cuda=(version // 1000, version % 1000 // 10),
            memory_bytes=int(_call(api.cuDeviceTotalMem, self._device)),
        )

    def allocate(self, size_bytes: int) -> int:
        """Device memory, uninitialised."""
        return int(_call(api.cuMemAlloc, size_bytes))

    def free(self, pointer: int) -> None:
        """Give device memory back."""
        _call(api.cuMemFree, pointer)

    def pinned(self, shape: Sequence[int], dtype: DTypeLike) -> NDArray[Any]:
        """Zeros on pinned pages."""
        size = max(1, int(np.prod(shape)) * np.dtype(dtype).itemsize)
        address = int(_call(api.cuMemHostAlloc, size, 0))
        pages = (ctypes.c_uint8 * size).from_address(address)
        weakref.finalize(pages, _free_host, self, address)
        array: NDArray[Any] = np.ctypeslib.as_array(pages)[: int(np.prod(shape)) * np.dtype(dtype).itemsize]
        array = array.view(dtype).reshape(shape)
        array.fill(0)
        return array

    def copy_in(self, pointer: int, array: NDArray[Any], stream: int) -> None:
        """Queue a copy to the device."""
        _call(api.cuMemcpyHtoDAsync, pointer, array.ctypes.data, array.nbytes, stream)

    def copy_out(self, array: NDArray[Any], pointer: int, stream: int) -> None:
        """Queue a copy to the host."""
        _call(api.cuMemcpyDtoHAsync, array.ctypes.data, pointer, array.nbytes, stream)

    def open_stream(self) -> int:
        """A stream that does not wait for the default one."""
        return int(_call(api.cuStreamCreate, int(api.CUstream_flags.CU_STREAM_NON_BLOCKING)))

    def close_stream(self, stream: int) -> None:
        """Destroy a stream."""
        _call(api.cuStreamDestroy, stream)

    def synchronize(self, stream: int) -> None:
        """Wait until all that was queued is done."""
        _call(api.cuStreamSynchronize, stream)

    def capture(self, stream: int, work: Callable[[], None]) -> Any:
        """A graph of what `work` queues."""
        _call(api.cuStreamBeginCapture, stream, api.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)
        try:
            work()
        except BaseException:
            api.cuStreamEndCapture(stream)  # a stream left capturing would refuse all else
            raise
        graph = _call(api.cuStreamEndCapture, stream)
        try:
            return _Graph(_call(api.cuGraphInstantiate, graph, 0))
        finally:
            _call(api.cuGraphDestroy, graph)

    def launch_graph(self, graph: Any, stream: int) -> None:
        """Queue a captured graph."""
        _call(api.cuGraphLaunch, graph.handle, stream)

    def event(self) -> Any:
        """A point in a stream that can be timed."""
        return _Event(_call(api.cuEventCreate, 0))

    def record(self, event: Any, stream: int) -> None:
        """Queue the event."""
        _call(api.cuEventRecord, event.handle, stream)

    def elapsed_ms(self, start: Any, end: Any) -> float:
        """Device time between two events."""
        return float(_call(api.cuEventElapsedTime, start.handle, end.handle))

    def load_module(self, image: bytes) -> Any:
        """A module of a cubin, a fatbin or PTX."""
        return _call(api.cuModuleLoadData, image + b"\0")  # PTX is text, which CUDA wants to end

    def function(self, module: Any, name: str) -> Any:
        """A kernel of a module."""
        return _call(api.cuModuleGetFunction, module, name.encode())

    def launch(
        self,
        function: Any,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        arguments: Sequence[np.generic],
        stream: int,
        shared_bytes: int = 0,
    ) -> None:
        """Queue a kernel; CUDA copies the arguments before it returns."""
        values = [np.asarray(argument) for argument in arguments]
        addresses = np.array([value.ctypes.data for value in values], dtype=np.uint64)
        _call(api.cuLaunchKernel, function, *grid, *block, shared_bytes, stream, addresses.ctypes.data, 0)


class _Graph:
    def __init__(self, handle: Any) -> None:
        self.handle = handle
        weakref.finalize(self, api.cuGraphExecDestroy, handle)


class _Event:
    def __init__(self, handle: Any) -> None:
        self.handle = handle
        weakref.finalize(self, api.cuEventDestroy, handle)


def _free_host(_driver: BindingsDriver, address: int) -> None:
    """Free pinned pages; holds the driver, without whose context they can't be."""
    api.cuMemFreeHost(address)


def _call(function: Callable[..., Any], *arguments: Any) -> Any:
    status, *values = function(*arguments)
    if status != api.CUresult.CUDA_SUCCESS:
        raise DeviceError(f"CUDA: {function.__name__} failed with {status.name}")
    return values[0] if values else None
