"""The CUDA interface: errors of a machine without GPU; both packages for real on a simulated libcuda; NVRTC."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edge import cuda
from edge.errors import DeviceError

HERE = Path(__file__).parent
_ALL_CALLS = """
import ctypes, gc, sys
import numpy as np
from edge.cuda import open_driver
from edge.errors import DeviceError

driver = open_driver(sys.argv[1])
info = driver.device()
assert (info.name, info.sm, info.cuda, info.memory_bytes) == ("Simulated", (8, 7), (13, 2), 6 << 30), info
stream = driver.open_stream()
given, got = driver.pinned((2, 3), np.float32), driver.pinned((2, 3), np.float32)
assert (given == 0).all()
left, right = driver.allocate(given.nbytes), driver.allocate(given.nbytes)
add = driver.function(driver.load_module(b"PTX"), "add")
given[...] = 3

def work():
    driver.copy_in(left, given, stream)
    driver.copy_in(right, given, stream)
    arguments = [np.uint64(left), np.uint64(right), np.int32(given.size)]
    driver.launch(add, (1, 1, 1), (32, 1, 1), arguments, stream)
    driver.copy_out(got, left, stream)

graph = driver.capture(stream, work)
driver.synchronize(stream)
assert (got == 0).all()  # a captured call does not run
for value in (5, 6):
    given[...] = value
    driver.launch_graph(graph, stream)
    driver.synchronize(stream)
    assert (got == 2 * value).all()
work()
driver.synchronize(stream)
start, end = driver.event(), driver.event()
driver.record(start, stream)
work()
driver.record(end, stream)
driver.synchronize(stream)
assert driver.elapsed_ms(start, end) > 0

def refused(call):
    try:
        call()
    except DeviceError as error:
        assert str(error).startswith("CUDA: ") and "\\n" not in str(error), error
        return
    raise AssertionError("expected a DeviceError")

refused(lambda: driver.load_module(b"no module"))
refused(lambda: driver.function(driver.load_module(b"PTX"), "subtract"))
refused(lambda: driver.allocate(0))
refused(lambda: driver.capture(stream, lambda: driver.synchronize(stream)))
work()  # the stream serves on after a capture that failed
driver.synchronize(stream)
driver.free(left)
driver.free(right)
driver.close_stream(stream)
view = got[:1]
del given, got, work, graph, start, end
gc.collect()
library = ctypes.CDLL("libcuda.so.1")
assert library.simulated_allocated() == 1  # pinned pages live as long as a view of them
del view
gc.collect()
assert library.simulated_allocated() == 0
print("all calls")
"""
_TWO_THREADS = """
import ctypes, sys, threading
from edge.cuda import open_driver

first, opened = open_driver(sys.argv[1]), []
pointer, stream = first.allocate(8), first.open_stream()

def swap():  # opens the next bundle, frees the one before
    second = open_driver(sys.argv[1])
    opened.append((second, second.allocate(8), second.open_stream()))
    first.close_stream(stream)
    first.free(pointer)

thread = threading.Thread(target=swap)
thread.start()
thread.join()
library = ctypes.CDLL("libcuda.so.1")
assert library.simulated_allocated() == 1
[(second, pointer, stream)] = opened
second.close_stream(stream)
second.free(pointer)
assert library.simulated_allocated() == 0
print("all freed")
"""


def _needs(package: str) -> None:
    try:
        there = importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:
        there = False
    if not there:
        pytest.skip(f"{package} is not installed (extra {'edge-gpu' if package == 'pycuda' else 'rtx'})")


def _python(code: str, *arguments: str, library_path: str = "", packages: str = "") -> subprocess.CompletedProcess[str]:
    path = f"{packages}:{HERE.parents[1]}:{os.environ.get('PYTHONPATH', '')}"
    environment = os.environ | {"PYTHONPATH": path, "LD_LIBRARY_PATH": library_path}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], env=environment, capture_output=True, text=True, check=False
    )


def _libcuda(folder: Path, package: str) -> str:
    """The folder of the simulated libcuda.so.1."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler is here to build the simulated libcuda")
    source, library = folder / "simulated.c", folder / "libcuda.so.1"
    simulated = (HERE / "simulated_libcuda.c").read_text()
    refused = sorted(
        _wanted_by_pycuda() - set(re.findall(r"^int (\w+)\(", simulated, re.M)) if package == "pycuda" else ()
    )
    source.write_text(simulated + "".join(f"int {name}(void) {{ return 801; }}\n" for name in refused))
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-w", "-o", str(library), str(source)], check=True)
    (folder / "libcuda.so").symlink_to(library.name)
    return str(folder)


def _wanted_by_pycuda() -> set[str]:
    """pycuda's extension loads only where libcuda has every function that it was linked for."""
    spec = importlib.util.find_spec("pycuda")
    if spec is None or spec.origin is None or shutil.which("nm") is None:
        pytest.skip("pycuda or nm is not here")
    [extension] = Path(spec.origin).parent.glob("_driver*.so")
    listed = subprocess.run(
        ["nm", "-D", "--undefined-only", str(extension)], capture_output=True, text=True, check=True
    )
    return set(re.findall(r" U (cu[A-Z]\w+)", listed.stdout))


@pytest.mark.parametrize(("package", "module"), [("cuda-bindings", "cuda.bindings"), ("pycuda", "pycuda")])
def test_every_call_reaches_the_driver_as_it_should(tmp_path: Path, package: str, module: str) -> None:
    _needs(module)
    done = _python(_ALL_CALLS, package, library_path=_libcuda(tmp_path, package))
    assert (done.returncode, done.stdout, done.stderr) == (0, "all calls\n", "")


@pytest.mark.parametrize(("package", "module"), [("cuda-bindings", "cuda.bindings"), ("pycuda", "pycuda")])
def test_a_thread_that_opened_engines_may_end_and_free_those_of_another(
    tmp_path: Path, package: str, module: str
) -> None:
    _needs(module)
    done = _python(_TWO_THREADS, package, library_path=_libcuda(tmp_path, package))
    assert (done.returncode, done.stdout, done.stderr) == (0, "all freed\n", "")


def test_by_pycudas_rules_of_contexts_such_a_thread_may_end_too(tmp_path: Path) -> None:
    """pycuda itself needs the device's CUDA to be compiled; its rules are known."""
    package = tmp_path / "packages" / "pycuda"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    shutil.copy(HERE / "simulated_pycuda.py", package / "driver.py")
    done = _python(_TWO_THREADS, "pycuda", library_path=_libcuda(tmp_path, ""), packages=str(package.parent))
    assert (done.returncode, done.stdout, done.stderr) == (0, "all freed\n", "")


@pytest.mark.parametrize(("package", "module"), [("cuda-bindings", "cuda.bindings"), ("pycuda", "pycuda")])
def test_a_machine_without_driver_is_one_line(package: str, module: str) -> None:
    _needs(module)
    code = "import sys; from edge.cuda import open_driver; open_driver(sys.argv[1])"
    done = _python(code, package)
    if done.returncode == 0:
        pytest.skip("an NVIDIA driver is here")
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("edge.errors.DeviceError: CUDA: expected ") and "NVIDIA driver, got: " in last


def test_a_machine_without_any_package_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        DeviceError, match=r"^CUDA: expected the Python package pycuda or cuda-bindings \(extra edge-gpu\)"
    ):
        cuda.open_driver()


def test_a_package_that_is_none_is_one_line() -> None:
    with pytest.raises(DeviceError, match=r"^CUDA: expected one of pycuda, cuda-bindings, got 'abacus'$"):
        cuda.open_driver("abacus")


def test_kernels_compile_without_a_driver() -> None:
    """What `load_module` takes: a cubin for Orin, from NVRTC, on a machine without GPU."""
    _needs("cuda.bindings")
    nvrtc = pytest.importorskip("cuda.bindings.nvrtc")
    source = b'extern "C" __global__ void add(float *to, const float *from) { to[threadIdx.x] += from[threadIdx.x]; }'
    try:
        status, program = nvrtc.nvrtcCreateProgram(source, b"add.cu", 0, [], [])
    except RuntimeError as error:
        pytest.skip(f"NVRTC is not installed: {error}")
    assert status == nvrtc.nvrtcResult.NVRTC_SUCCESS
    options = [b"--gpu-architecture=sm_87"]
    assert nvrtc.nvrtcCompileProgram(program, len(options), options)[0] == nvrtc.nvrtcResult.NVRTC_SUCCESS
    _, size = nvrtc.nvrtcGetCUBINSize(program)
    cubin = b" " * size
    assert nvrtc.nvrtcGetCUBIN(program, cubin)[0] == nvrtc.nvrtcResult.NVRTC_SUCCESS
    assert cubin.startswith(b"\x7fELF")
    assert b"add" in cubin
