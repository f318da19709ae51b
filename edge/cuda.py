"""The CUDA driver, as little of it as engines and kernels need: memory, streams, graphs, events, modules, launches.

Two packages implement it: pycuda (`edge/cuda_pycuda.py`, the default of the extra `edge-gpu`) and cuda-bindings
(`edge/cuda_bindings.py`). Device memory is a pointer (int), a stream its handle (int), so that both go to TensorRT and
to kernels as they are. Host memory is a numpy array on pinned pages. All work happens in the device's primary context,
which the driver makes current in the thread that opens it. Threads that have opened one may use and free what belongs
to another's.

Ref: CUDA Driver API.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from edge.errors import DeviceError

PACKAGES: Final = ("pycuda", "cuda-bindings")


@dataclass(frozen=True, slots=True)
class DeviceInfo:
    """What a plan or a kernel is built for.

    Attributes:
        name: of the GPU.
        sm: compute capability (major, minor).
        cuda: the newest CUDA that the installed driver serves (major, minor).
        memory_bytes: of the device.
    """

    name: str
    sm: tuple[int, int]
    cuda: tuple[int, int]
    memory_bytes: int


class Driver(Protocol):
    """One GPU. Every call raises DeviceError where CUDA refuses it."""

    def device(self) -> DeviceInfo:
        """What this GPU is."""

    def allocate(self, size_bytes: int) -> int:
        """Device memory, uninitialised; `free` it."""

    def free(self, pointer: int) -> None:
        """Give device memory back."""

    def pinned(self, shape: Sequence[int], dtype: DTypeLike) -> NDArray[Any]:
        """Zeros on host pages that the GPU reads and writes directly; they live as long as the array and its views."""

    def copy_in(self, pointer: int, array: NDArray[Any], stream: int) -> None:
        """Queue a copy of a pinned array into device memory of its size."""

    def copy_out(self, array: NDArray[Any], pointer: int, stream: int) -> None:
        """Queue a copy of device memory into a pinned array."""

    def open_stream(self) -> int:
        """A stream that does not wait for the default one; `close_stream` it."""

    def close_stream(self, stream: int) -> None:
        """Destroy a stream."""

    def synchronize(self, stream: int) -> None:
        """Wait until all that was queued is done."""

    def capture(self, stream: int, work: Callable[[], None]) -> Any:
        """A graph of what `work` queues on the stream; nothing of it runs. It lives as long as the object."""

    def launch_graph(self, graph: Any, stream: int) -> None:
        """Queue a captured graph."""

    def event(self) -> Any:
        """A point in a stream that can be timed."""

    def record(self, event: Any, stream: int) -> None:
        """Queue the event."""

    def elapsed_ms(self, start: Any, end: Any) -> float:
        """Device time between two events that have happened."""

    def load_module(self, image: bytes) -> Any:
        """A module of a cubin, a fatbin or PTX."""

    def function(self, module: Any, name: str) -> Any:
        """A kernel of a module, by its (mangled) name."""

    def launch(
        self,
        function: Any,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        arguments: Sequence[np.generic],
        stream: int,
        shared_bytes: int = 0,
    ) -> None:
        """Queue a kernel.

        Args:
            arguments: numpy scalars (structured ones for a params struct); a device pointer is np.uint64.
            shared_bytes: of dynamic shared memory.
        """


def open_driver(package: str = "") -> Driver:
    """The first GPU's driver.

    Args:
        package: one of PACKAGES; "" takes the first of them that is installed.

    Raises:
        DeviceError: neither package is installed, or there is no driver or no GPU.
    """
    if package and package not in PACKAGES:
        raise DeviceError(f"CUDA: expected one of {', '.join(PACKAGES)}, got {package!r}")
    for name in [package] if package else PACKAGES:
        driver = _open(name)
        if driver is not None:
            return driver
    wanted = package or " or ".join(PACKAGES)
    raise DeviceError(f"CUDA: expected the Python package {wanted} (extra edge-gpu), which is not installed")


def _open(package: str) -> Driver | None:
    """None where the package is not installed."""
    from importlib.util import find_spec

    if package == "pycuda":
        if find_spec("pycuda") is None:
            return None
        from edge.cuda_pycuda import PycudaDriver

        return PycudaDriver()
    if find_spec("cuda") is None or find_spec("cuda.bindings") is None:
        return None
    from edge.cuda_bindings import BindingsDriver

    return BindingsDriver()
