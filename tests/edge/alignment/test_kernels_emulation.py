"""What proves the kernels without a GPU can fail: planted races, deadlocks and overruns are caught."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.gpu import Desk, cases
from edge.alignment.launch import Kernels
from edge.errors import DeviceError
from tests.edge.alignment.emulation.emulated import COMPILER, Emulated, EmulatedDriver

ROOT = Path(__file__).resolve().parents[3]
PARAMS = np.dtype([("out", np.uint64), ("count", np.int32)], align=True)
PLANTED = """#include "kernel.cuh"
struct PlantedParams {{ int* out; int count; }};
extern "C" __global__ void planted(const PlantedParams p) {{
  int* shared = block_shared<int>();
  const int thread = threadIdx.x, at = blockIdx.x * blockDim.x + thread, next = (thread + 1) % int(blockDim.x);
  (void)shared, (void)at, (void)next;  // not every body has a use for all
  {body}
}}
"""
FINE = "shared[thread] = at; __syncthreads(); p.out[at] = shared[next];"
RACES = {
    "a missing barrier": "shared[thread] = at; p.out[at] = shared[next];",
    "a missing second barrier": "shared[thread] = at; __syncthreads(); shared[next] += 1; p.out[at] = shared[thread];",
    "two blocks, one place": "p.out[thread] = at;",
}


def _planted(folder: Path, body: str) -> Path:
    if COMPILER is None:
        pytest.skip("no g++ is here to compile kernels for the CPU")
    source = folder / "planted.cu"
    source.write_text(PLANTED.format(body=body))
    return source


def _answers(folder: Path, body: str, orders: int = 6) -> set[bytes]:
    """What two blocks of 32 threads leave under each order of threads."""
    kernel, answers = Emulated(_planted(folder, body), folder), set()
    for seed in range(orders):
        out = np.zeros(64, np.int32)
        kernel.run("planted", (2, 1, 1), (32, 1, 1), np.array((out.ctypes.data, 64), PARAMS), 128, seed)
        answers.add(out.tobytes())
    return answers


def _under_tsan(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The module `races` with ThreadSanitizer in the process, at fixed addresses, which it needs."""
    if COMPILER is None or shutil.which("setarch") is None:
        pytest.skip("g++ or setarch is not here to watch for races")
    named = subprocess.run([COMPILER, "-print-file-name=libtsan.so"], capture_output=True, text=True, check=True)
    library = Path(named.stdout.strip()).resolve()
    if not library.is_file():
        pytest.skip("libtsan is not here to watch for races")
    environment = os.environ | {
        "LD_PRELOAD": str(library),
        "TSAN_OPTIONS": "halt_on_error=1 exitcode=66",
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
    }
    command = [
        "setarch",
        platform.machine(),
        "-R",
        sys.executable,
        "-m",
        "tests.edge.alignment.emulation.races",
        *arguments,
    ]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if "personality" in done.stderr or "unexpected memory mapping" in done.stderr:
        pytest.skip(f"ThreadSanitizer can't run here: {done.stderr.strip().splitlines()[0]}")
    return done


def test_a_kernel_with_its_barriers_gives_one_answer(tmp_path: Path) -> None:
    assert len(_answers(tmp_path, FINE)) == 1


@pytest.mark.parametrize("body", RACES.values(), ids=RACES)
def test_a_planted_race_gives_other_answers_under_other_orders(tmp_path: Path, body: str) -> None:
    assert len(_answers(tmp_path, body)) > 1


@pytest.mark.parametrize("body", RACES.values(), ids=RACES)
def test_a_planted_race_is_caught_by_tsan(tmp_path: Path, body: str) -> None:
    done = _under_tsan(str(tmp_path), str(_planted(tmp_path, body)))
    assert done.returncode == 66
    assert "data race" in done.stderr and "planted.cu" in done.stderr


def test_every_kernel_is_free_of_races(tmp_path: Path) -> None:
    done = _under_tsan(str(tmp_path), str(_planted(tmp_path, FINE)))
    assert (done.returncode, done.stdout) == (0, "no race\n"), done.stderr[-2000:]
    done = _under_tsan(str(tmp_path))
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 18), done.stderr[-4000:]


@pytest.mark.parametrize(
    ("body", "line"),
    [
        ("if (thread < 16) __syncthreads(); p.out[at] = 1;", "deadlock: thread"),
        ("if (thread < 16) __syncthreads();\n else __syncthreads();", "deadlock: thread"),
        ("if (thread < 16) return; p.out[at] = __shfl_up_sync(WHOLE_WARP, at, 1);", "deadlock: thread"),
        ("shared[thread + 1] = at;", "shared memory is overrun at byte 128"),
    ],
)
def test_deadlocks_and_overruns_are_errors_and_not_hangs(tmp_path: Path, body: str, line: str) -> None:
    with pytest.raises(DeviceError, match=f"^CUDA: planted: {line}"):
        _answers(tmp_path, body, 1)


def test_shared_memory_that_nobody_wrote_is_poison(tmp_path: Path) -> None:
    assert len(_answers(tmp_path, "p.out[at] = shared[thread];")) == 2


def test_memory_around_an_allocation_is_watched(emulated_gpu: EmulatedDriver) -> None:
    pointer = emulated_gpu.allocate(10)
    stream = emulated_gpu.open_stream()
    emulated_gpu.synchronize(stream)
    raw = emulated_gpu._raw[pointer]
    raw[pointer - raw.ctypes.data + 10] = 0
    with pytest.raises(DeviceError, match="around an allocation of 10 bytes"):
        emulated_gpu.synchronize(stream)
    emulated_gpu.free(pointer)


def test_warp_operations_are_cudas(tmp_path: Path) -> None:
    body = """
  int value = __shfl_sync(WHOLE_WARP, thread, 5);
  value = value * 64 + __shfl_up_sync(WHOLE_WARP, thread, 1);
  value = value * 64 + __shfl_down_sync(WHOLE_WARP, thread, 2);
  value = value * 64 + __shfl_xor_sync(WHOLE_WARP, thread, 3);
  __syncwarp(WHOLE_WARP);
  const bool odd = __ballot_sync(WHOLE_WARP, thread % 2) == 0xaaaaaaaau && !__any_sync(WHOLE_WARP, thread > 31);
  p.out[at] = odd ? value : -1;
"""
    [answer] = _answers(tmp_path, body)
    got = np.frombuffer(answer, np.int32)[:32]
    lane = np.arange(32)
    up, down = np.maximum(lane - 1, 0), np.where(lane < 30, lane + 2, lane)
    assert got.tolist() == (((5 * 64 + up) * 64 + down) * 64 + (lane ^ 3)).tolist()


def test_every_case_of_the_benchmark_is_right_on_the_emulated_gpu(emulated_gpu: EmulatedDriver) -> None:
    for seed in (0, 1, 9):
        emulated_gpu.seed, desk = seed, Desk(emulated_gpu)
        for case in cases(desk, Kernels(emulated_gpu), large=False):
            case.launch(desk.stream)
            apart, tolerance = case.check()
            assert apart <= tolerance, case.name
        desk.close()
