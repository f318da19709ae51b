"""The launcher: what does not fit is refused in one line, and params reach the driver as the kernels read them."""

from __future__ import annotations

import ctypes
import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import gpu
from edge.alignment.kernel_inputs import (
    RGB_OF_BGR,
    Colours,
    DeviceArray,
    DtwInput,
    LogmelOptions,
    LogmelTables,
    PinholeCamera,
    StreamArrays,
)
from edge.alignment.launch import Kernels
from edge.cuda import DeviceInfo
from edge.errors import DeviceError
from tests.edge import test_cuda
from tests.edge.alignment.emulation.emulated import COMPILER, EmulatedDriver
from tests.edge.simulated_gpu import SimulatedDriver

NEW = DeviceInfo("Simulated Thor", (11, 0), (13, 0), 64 << 30)
_PARAMS_ARRIVE = """
import sys
import numpy as np
from edge.cuda import open_driver

driver = open_driver(sys.argv[1])
stream = driver.open_stream()
given, got = driver.pinned((6,), np.float32), driver.pinned((6,), np.float32)
given[...] = 3
left, right = driver.allocate(given.nbytes), driver.allocate(given.nbytes)
add = driver.function(driver.load_module(b"PTX"), "add")
params = np.zeros((), np.dtype([("to", np.uint64), ("from", np.uint64), ("size", np.int32)], align=True))
params["to"], params["from"], params["size"] = left, right, given.size
driver.copy_in(left, given, stream)
driver.copy_in(right, given, stream)
driver.launch(add, (1, 1, 1), (32, 1, 1), (params[()],), stream)
driver.copy_out(got, left, stream)
driver.synchronize(stream)
assert (got == 6).all(), got
print("arrived")
"""


def array(*shape: int, dtype: str = "float32", pointer: int = 4096) -> DeviceArray:
    return DeviceArray(pointer, shape, dtype)


def ints(*shape: int) -> DeviceArray:
    return array(*shape, dtype="int32")


PAIRS = DtwInput(array(2, 8, 3), array(2, 9, 3), ints(2), ints(2), ints(1, 8), ints(1, 8))
CAMERA = PinholeCamera(np.eye(3, 4), 1, 1, 0, 0)
STREAM = StreamArrays(array(5, dtype="int64"), array(5, 2), array(4, 2), array(4, dtype="uint8"), 10)
TABLES = LogmelTables(array(512), array(257, 2), ints(4), ints(4), ints(4), array(9))
PICTURE, BYTES = array(3, 4, 6, 3, dtype="uint8"), array(3, 3, 2, 2, dtype="int8")
DEPTH = (array(4, 4, dtype="uint64"), array(4, 4), array(4, 4), ints(4, 4))

REFUSED: list[tuple[str, Any]] = [
    ("dtw_warp: expected b (2, any, 3) float32, got (2, 9, 2) float32",
     lambda k: k.dtw_warp(replace(PAIRS, b=array(2, 9, 2)), array(2), ints(2))),
    ("dtw_warp: expected last (1, 8) int32, got (2, 8) int32",
     lambda k: k.dtw_warp(replace(PAIRS, last=ints(2, 8)), array(2), ints(2))),
    ("dtw_warp: expected end (2) int32, got (2,) float32", lambda k: k.dtw_warp(PAIRS, array(2), array(2))),
    ("dtw_warp: expected at most 1024 columns, got 1025",
     lambda k: k.dtw_warp(replace(PAIRS, b=array(2, 1025, 3)), array(2), ints(2))),
    ("dtw_wavefront: expected at most 4096 rows, got 4097",
     lambda k: k.dtw_wavefront(
         replace(PAIRS, a=array(2, 4097, 3), first=ints(1, 4097), last=ints(1, 4097)), array(2), ints(2))),
    ("dtw_wavefront_path: expected path (2, 8, 1) uint32, got (2, 8, 2) uint32",
     lambda k: k.dtw_wavefront(PAIRS, array(2), ints(2), path=array(2, 8, 2, dtype="uint32"))),
    ("dtw_trace: expected steps for 8 rows and 16 x 1 columns or less, got 30",
     lambda k: k.dtw_trace(array(2, 8, 1, dtype="uint32"), ints(2), ints(2), ints(2, 30, 2), ints(2))),
    ("dtw_warp: expected a in device memory, got a null pointer",
     lambda k: k.dtw_warp(replace(PAIRS, a=array(2, 8, 3, pointer=0)), array(2), ints(2))),
    ("resample: expected 1..8 streams, got 9", lambda k: k.resample(array(4, dtype="int64"), [STREAM] * 9)),
    ("resample: expected out of stream 1 (4, 2) float32, got (4, 3) float32",
     lambda k: k.resample(array(4, dtype="int64"), [STREAM, replace(STREAM, out=array(4, 3))])),
    ("resample_sound: expected rates above 0 Hz, got 0 and 5",
     lambda k: k.resample_sound(array(4, dtype="int16"), array(4), 0, 5)),
    ("resample_sound: expected rates of at most 2097152 Hz, got 3000001 and 2",
     lambda k: k.resample_sound(array(4, dtype="int16"), array(4), 3000001, 2)),
    ("project: expected points_lidar (any, 4) float32, got (9, 3) float32",
     lambda k: k.project(array(9, 3), CAMERA, *DEPTH)),
    ("project: expected points_lidar at a multiple of 16, got 0x1004",
     lambda k: k.project(array(9, 4, pointer=0x1004), CAMERA, *DEPTH)),
    ("project: expected cam_SE3_lidar (3, 4), got (4, 4)",
     lambda k: k.project(array(9, 4), replace(CAMERA, cam_SE3_lidar=np.eye(4)), *DEPTH)),
    ("project: expected nearest_m above 0, got 0", lambda k: k.project(array(9, 4), CAMERA, *DEPTH, nearest_m=0)),
    ("preprocess: expected out int8, float16 or float32, got float64",
     lambda k: k.preprocess(PICTURE, array(3, 3, 2, 2, dtype="float64"), Colours(RGB_OF_BGR))),
    ("preprocess: expected out (3, 3, any, any) int8, got (2, 3, 2, 2) int8",
     lambda k: k.preprocess(PICTURE, array(2, 3, 2, 2, dtype="int8"), Colours(RGB_OF_BGR))),
    ("preprocess: expected NV12 of 3 n lines of even width, got 4 x 6",
     lambda k: k.preprocess(array(3, 4, 6, dtype="uint8"), BYTES, Colours(RGB_OF_BGR))),
    ("preprocess: expected matrix (3, 4), got (3, 3)", lambda k: k.preprocess(PICTURE, BYTES, Colours(np.eye(3)))),
    ("logmel: expected count (4) int32, got (3,) int32",
     lambda k: k.logmel(array(1, 99), replace(TABLES, count=ints(3)), array(1, 4, 2))),
    ("logmel: expected at most 65535 clips, a hop of 1 or more, a floor above 0, got 1, 0 and 1e-07",
     lambda k: k.logmel(array(1, 99), TABLES, array(1, 4, 2), LogmelOptions(hop=0))),
    ("agreement: expected cosine (2, 3) float32, got (2, 2) float32",
     lambda k: k.agreement(array(2, 3, 8), array(2, 3, dtype="uint8"), array(2, 2))),
]  # fmt: skip


@pytest.mark.parametrize(("line", "call"), REFUSED, ids=[line for line, _ in REFUSED])
def test_what_does_not_fit_is_refused_in_one_line(line: str, call: Any) -> None:
    with pytest.raises(DeviceError) as refused:
        call(Kernels(SimulatedDriver(NEW)))
    assert str(refused.value) == line


def test_a_launch_is_made_once_and_only_queued_after_that() -> None:
    driver = SimulatedDriver(NEW)
    launch = Kernels(driver).project(array(300, 4), CAMERA, *DEPTH)
    assert driver.calls == []
    launch(driver.open_stream())
    launch(driver.open_stream())
    assert driver.calls == ["launch"] * 6  # clear, points, resolve


def test_an_old_driver_is_told_before_the_image_is_loaded() -> None:
    old = DeviceInfo("Simulated Orin", (8, 7), (12, 6), 8 << 30)
    with pytest.raises(DeviceError) as refused:
        Kernels(SimulatedDriver(old)).dtw_warp(PAIRS, array(2), ints(2))
    assert str(refused.value) == "kernels: expected a driver of CUDA 13.0 or newer, got 12.6; compile with NVRTC"


def test_kernels_come_from_nvrtc_where_that_is_asked_for() -> None:
    pytest.importorskip("cuda.bindings.nvrtc", reason="cuda-bindings is not installed (extra rtx)")
    loaded: list[bytes] = []

    class Driver(SimulatedDriver):
        def load_module(self, image: bytes) -> Any:
            loaded.append(image)
            return image

    try:
        Kernels(Driver(), nvrtc=True).agreement(array(2, 3, 8), array(2, 3, dtype="uint8"), array(2, 3))
    except DeviceError as error:
        pytest.skip(str(error))
    assert loaded[0].startswith(b"\x7fELF") and b"agreement" in loaded[0]


@pytest.mark.parametrize(("package", "module"), [("cuda-bindings", "cuda.bindings"), ("pycuda", "pycuda")])
def test_a_params_struct_arrives_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, module: str
) -> None:
    """Both packages on the simulated libcuda, whose kernel here takes one struct."""
    test_cuda._needs(module)
    source = (test_cuda.HERE / "simulated_libcuda.c").read_text()
    changed = source.replace("arguments[1])", "(char *)arguments[0] + 8)").replace(
        "arguments[2])", "(char *)arguments[0] + 16)"
    )
    assert changed.count("(char *)arguments[0] +") == 2
    (tmp_path / "simulated_libcuda.c").write_text(changed)
    with monkeypatch.context() as patch:
        patch.setattr(test_cuda, "HERE", tmp_path)
        library = test_cuda._libcuda(tmp_path, package)
    done = test_cuda._python(_PARAMS_ARRIVE, package, library_path=library)
    assert (done.returncode, done.stdout, done.stderr) == (0, "arrived\n", "")


def test_the_benchmark_without_a_gpu_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def none(package: str) -> Any:
        raise DeviceError("CUDA: expected an NVIDIA driver, got: none")

    monkeypatch.setattr(gpu, "open_driver", none)
    assert gpu.main([]) == 2
    assert capsys.readouterr().err == "gpu: CUDA: expected an NVIDIA driver, got: none\n"


class _Timed(EmulatedDriver):
    """Knows the benchmark's PTX, and takes a millisecond for everything."""

    def load_module(self, image: bytes) -> Any:
        return _Copy() if image == gpu.COPY else super().load_module(image)

    def elapsed_ms(self, start: Any, end: Any) -> float:
        return 1.0


class _Copy:
    kernels = ("copy",)

    def run(self, name: str, grid: Any, block: Any, source: Any, target: Any, count: Any, *rest: Any) -> None:
        assert grid[0] * block[0] >= count
        ctypes.memmove(int(target), int(source), int(count) * 16)


def test_the_benchmark_runs_through_on_the_emulated_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if COMPILER is None:
        pytest.skip("no g++ is here to compile the kernels for the CPU")
    monkeypatch.setattr(gpu, "REPEATS", 2)
    assert gpu.main(["--quick", "--json", str(tmp_path / "figures.json")], _Timed(tmp_path)) == 0
    told = capsys.readouterr().out
    assert "WRONG" not in told and told.count("check ") == 18
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert (figures["wrong"], len(figures["rows"])) == (0, 18)
    warp = figures["rows"][0]
    assert warp["cells_s"] == pytest.approx(5 * 37 * 53 / 1e-3)
    assert warp["bound_share"] == pytest.approx(warp["cells_s"] / (16 * 64 * 1.3e9 / 2))  # Orin's


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is not here to assemble the benchmark's PTX")
def test_the_benchmarks_copy_assembles(tmp_path: Path) -> None:
    (tmp_path / "copy.ptx").write_bytes(gpu.COPY)
    command = ["nvcc", "--cubin", "-arch=sm_90", "-o", "copy.cubin", "copy.ptx"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
