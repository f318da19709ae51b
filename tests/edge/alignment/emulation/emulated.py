"""A GPU that runs kernels: the simulated driver's memory and streams, and the `.cu` sources through `emulate.h`."""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge.alignment.kernels import DRIVER, FAMILIES, FOLDER, manifest
from edge.cuda import DeviceInfo
from edge.errors import DeviceError
from tests.edge.simulated_gpu import SimulatedDriver

HERE = Path(__file__).resolve().parent
COMPILER = shutil.which("g++")
_KERNEL = re.compile(
    r'extern "C" __global__ void (?:__launch_bounds__\([^)]*\) )?(?P<name>\w+)\(const (?P<params>\w+) p\)'
)
_WARNINGS = ["-Wall", "-Wextra", "-Wno-unknown-pragmas", "-Wno-unused-function"]
_GUARD_BYTES = 256
_GUARD = 0x5A


class Emulated:
    """A compiled `.cu`.

    Args:
        source: of the `.cu`.
        folder: where to compile.
        races: whether to watch for them (ThreadSanitizer, which must be loaded first).
    """

    def __init__(self, source: Path, folder: Path, races: bool = False) -> None:
        found = dict(_KERNEL.findall(source.read_text()))
        wrapper = folder / f"{source.stem}.cpp"
        layouts = FAMILIES.get(source.stem, {})
        wrapper.write_text(
            f'#include "{HERE / "emulate.h"}"\n#include "{source}"\n#include <cstddef>\n#include <type_traits>\n'
            + "".join(_same_layout(params, layouts[name]) for name, params in found.items() if name in layouts)
            + "".join(_trampoline(name, params) for name, params in found.items())
        )
        library = folder / f"{source.stem}{'-races' if races else ''}.so"
        flags = ["-std=c++17", "-O1", "-g1", *(_WARNINGS if layouts else ["-w"])]  # planted bodies leave things unused
        flags += ["-ffp-contract=off", "-U_FORTIFY_SOURCE", "-fno-strict-aliasing", "-DEMULATED", f"-I{FOLDER}"]
        flags += ["-fsanitize=thread"] if races else []
        command = [COMPILER or "g++", *flags, "-shared", "-fPIC", "-o", str(library), str(wrapper)]
        # TSan is for this process alone.
        environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr[:4000]
        self._library = ctypes.CDLL(str(library))
        self.kernels = sorted(found)

    def run(self, name: str, grid: Any, block: Any, params: Any, shared_bytes: int, seed: int) -> None:
        """Run a kernel under the order of threads that the seed gives.

        Raises:
            DeviceError: threads waited for each other, or shared memory was overrun.
        """
        function = getattr(self._library, f"run_{name}")
        function.restype = ctypes.c_char_p
        sizes = (ctypes.c_uint * 3)(*grid), (ctypes.c_uint * 3)(*block)
        content = np.ascontiguousarray(params).tobytes()
        wrong = function(content, *sizes, ctypes.c_uint(shared_bytes), ctypes.c_uint(seed))
        if wrong is not None:
            raise DeviceError(f"CUDA: {name}: {wrong.decode()}")


def _trampoline(name: str, params: str) -> str:
    return (
        f'extern "C" const char* run_{name}(const void* params, const unsigned* grid, const unsigned* block, '
        "unsigned shared, unsigned seed) {\n"
        f"  return emulate::launch([](const void* p) {{ {name}(*static_cast<const {params}*>(p)); }}, params, grid, "
        "block, shared, seed);\n}\n"
    )


def _same_layout(params: str, dtype: np.dtype[Any]) -> str:
    """The struct has the fields of its numpy twin, where that has them."""
    checks = [f"sizeof({params}) == {dtype.itemsize}"]
    for name, (field, offset, *_) in (dtype.fields or {}).items():
        checks.append(f"offsetof({params}, {name}) == {offset} && sizeof({params}::{name}) == {field.itemsize}")
        if field.subdtype is not None and field.subdtype[0].fields:
            inner = f"std::remove_extent<decltype({params}::{name})>::type"
            checks += [
                f"offsetof({inner}, {part}) == {at} && sizeof({inner}::{part}) == {kind.itemsize}"
                for part, (kind, at, *_) in field.subdtype[0].fields.items()
            ]
    return "".join(f'static_assert({check}, "{params}");\n' for check in checks)


class EmulatedDriver(SimulatedDriver):
    """`edge.cuda.Driver` whose launches run, in the order of threads that `seed` gives, when somebody waits for them.

    A device pointer is an address on the host; what is around an allocation is watched.

    Attributes:
        seed: 0 ascending, 1 descending, any other a different order at each barrier.
    """

    def __init__(self, folder: Path, races: bool = False) -> None:
        super().__init__(DeviceInfo("Emulated", (8, 7), DRIVER, 8 << 30))
        self.seed = 0
        self._folder, self._races = folder, races
        self._modules: dict[str, Emulated] = {}
        self._raw: dict[int, np.ndarray[Any, Any]] = {}

    def allocate(self, size_bytes: int) -> int:
        self._call("allocate", in_capture=False)
        raw = np.full(size_bytes + 3 * _GUARD_BYTES, _GUARD, np.uint8)
        at = _GUARD_BYTES + -raw.ctypes.data % _GUARD_BYTES
        pointer = int(raw.ctypes.data) + at
        self._raw[pointer], self.memory[pointer] = raw, raw[at : at + size_bytes]
        self.memory[pointer][:] = 0xCD
        return pointer

    def free(self, pointer: int) -> None:
        super().free(pointer)
        del self._raw[pointer]

    def synchronize(self, stream: int) -> None:
        super().synchronize(stream)
        for pointer, raw in self._raw.items():
            at = pointer - int(raw.ctypes.data)
            around = np.concatenate([raw[:at], raw[at + len(self.memory[pointer]) :]])
            if (around != _GUARD).any():
                raise DeviceError(
                    f"CUDA: the memory around an allocation of {len(self.memory[pointer])} bytes is written"
                )

    def load_module(self, image: bytes) -> Any:
        """The emulation of the family whose built image this is."""
        digest = hashlib.sha256(image).hexdigest()
        [family] = [name for name, entry in manifest()["families"].items() if entry["image_sha256"] == digest]
        if family not in self._modules:
            self._modules[family] = Emulated(FOLDER / f"{family}.cu", self._folder, self._races)
        return self._modules[family]

    def function(self, module: Any, name: str) -> Any:
        if name not in module.kernels:
            raise DeviceError("CUDA: cuModuleGetFunction failed with CUDA_ERROR_NOT_FOUND")
        return module, name

    def launch(
        self, function: Any, grid: Any, block: Any, arguments: Sequence[Any], stream: int, shared_bytes: int = 0
    ) -> None:
        self._call("launch")
        module, name = function
        kept = [np.array(argument) for argument in arguments]  # CUDA copies them before it returns
        self.queue(stream, lambda: module.run(name, grid, block, *kept, shared_bytes, self.seed))
