"""The alignment kernels on the GPU that is here: each checked against its numpy reference, then timed with events.

Bytes are what a kernel must read and write once, whatever the caches do; the share is of the bandwidth of a plain copy
on the same GPU. DTW is bound by minima instead, two a cell: cells/s <= multiprocessors x 64 a clock x clock / 2. The
figures of multiprocessors and clock come from a table by compute capability, or from the command line.

    python benchmarks/gpu.py [--nvrtc] [--package NAME] [--quick] [--multiprocessors N] [--clock-ghz F] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from edge.alignment import reference
from edge.alignment.kernel_inputs import (
    RGB_OF_BGR,
    RGB_OF_BT601,
    Colours,
    DeviceArray,
    DtwInput,
    DtwOptions,
    LogmelOptions,
    LogmelTables,
    PinholeCamera,
    StreamArrays,
    logmel_tables,
)
from edge.alignment.launch import Kernels, Launch
from edge.cuda import Driver, open_driver
from edge.errors import DeviceError

REPEATS = 30
COPY_BYTES = 1 << 30
DTW_PAIRS = 4096
MINIMA_A_CLOCK = 64  # of a multiprocessor. Ref: CUDA C++ Programming Guide, arithmetic instructions
# (multiprocessors, boost clock in GHz): AGX Orin, H200, AGX Thor, RTX 5090.
ASSUMED = {(8, 7): (16, 1.3), (9, 0): (132, 1.98), (11, 0): (20, 1.57), (12, 0): (170, 2.41)}
COPY = b"""
.version 7.0
.target sm_75
.address_size 64
.visible .entry copy(.param .u64 from, .param .u64 to, .param .u64 count) {
  .reg .pred %p; .reg .b32 %r<8>; .reg .b64 %d<8>;
  mov.u32 %r1, %ctaid.x; mov.u32 %r2, %ntid.x; mov.u32 %r3, %tid.x;
  mul.wide.u32 %d1, %r1, %r2; cvt.u64.u32 %d2, %r3; add.u64 %d1, %d1, %d2;
  ld.param.u64 %d3, [count]; setp.ge.u64 %p, %d1, %d3; @%p ret;
  ld.param.u64 %d4, [from]; ld.param.u64 %d5, [to];
  cvta.to.global.u64 %d4, %d4; cvta.to.global.u64 %d5, %d5; shl.b64 %d1, %d1, 4;
  add.u64 %d4, %d4, %d1; add.u64 %d5, %d5, %d1;
  ld.global.nc.v4.u32 {%r4, %r5, %r6, %r7}, [%d4]; st.global.v4.u32 [%d5], {%r4, %r5, %r6, %r7};
  ret;
}
"""


class Desk:
    """Arrays on a device, and one stream. What it puts there goes when it is closed."""

    def __init__(self, driver: Driver) -> None:
        self.driver, self.stream = driver, driver.open_stream()
        self._pointers: list[int] = []

    def put(self, array: Any) -> DeviceArray:
        """A copy on the device."""
        array = np.asarray(array)
        there = self.room(array.shape, array.dtype.name)
        if array.size:
            pinned = self.driver.pinned(array.shape, array.dtype)
            pinned[...] = array
            self.driver.copy_in(there.pointer, pinned, self.stream)
            self.driver.synchronize(self.stream)
        return there

    def room(self, shape: tuple[int, ...], dtype: str) -> DeviceArray:
        """Uninitialised."""
        pointer = self.driver.allocate(max(int(np.prod(shape)) * np.dtype(dtype).itemsize, 1))
        self._pointers.append(pointer)
        return DeviceArray(pointer, tuple(int(size) for size in shape), dtype)

    def get(self, array: DeviceArray) -> NDArray[Any]:
        """What is there once all that was queued is done."""
        pinned = self.driver.pinned(array.shape, array.dtype)
        if pinned.size:
            self.driver.copy_out(pinned, array.pointer, self.stream)
        self.driver.synchronize(self.stream)
        return pinned

    def close(self) -> None:
        for pointer in self._pointers:
            self.driver.free(pointer)
        self.driver.close_stream(self.stream)


@dataclass(frozen=True)
class Case:
    """A kernel with its arguments.

    Attributes:
        check: the largest difference from the reference after the launch, and the tolerance.
        moved_bytes: at least.
        cells: of DTW.
    """

    name: str
    launch: Launch
    check: Callable[[], tuple[float, float]]
    moved_bytes: int
    cells: int = 0


@dataclass(frozen=True)
class Measured:
    """A row of the table; `copy_share` is of the copy's bandwidth, `bound_share` of DTW's bound."""

    name: str
    time_us: float
    gb_s: float
    copy_share: float
    cells_s: float = 0.0
    bound_share: float | None = None


def main(argv: list[str] | None = None, driver: Driver | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nvrtc", action="store_true", help="compile for this GPU instead of taking the built images")
    parser.add_argument("--package", default="", help="pycuda or cuda-bindings (default: the first installed)")
    parser.add_argument("--quick", action="store_true", help="time the small shapes of the checks only")
    parser.add_argument("--multiprocessors", type=int, help="of this GPU (default: by compute capability)")
    parser.add_argument("--clock-ghz", type=float, help="of this GPU (default: by compute capability)")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    words = parser.parse_args(argv)
    try:
        return _measure(driver or open_driver(words.package), words)
    except DeviceError as error:
        print(f"gpu: {error}", file=sys.stderr)
        return 2


def _measure(driver: Driver, words: argparse.Namespace) -> int:
    info = driver.device()
    assumed = ASSUMED.get(info.sm, (0, 0.0))
    multiprocessors, clock_ghz = words.multiprocessors or assumed[0], words.clock_ghz or assumed[1]
    bound_cells_s = multiprocessors * MINIMA_A_CLOCK * clock_ghz * 1e9 / 2
    kernels, desk = Kernels(driver, words.nvrtc), Desk(driver)
    try:
        wrong = sum(_differs(desk, case) for case in cases(desk, kernels, large=False))
        copy_gb_s = _copy_gb_s(desk, COPY_BYTES if not words.quick else 1 << 20)
    finally:
        desk.close()
    print(f"{info.name}, sm_{info.sm[0]}{info.sm[1]}: copy {copy_gb_s:.0f} GB/s; DTW bound {bound_cells_s:.3g} cells/s")
    print(f"{'kernel':32} {'us':>10} {'GB/s':>8} {'of copy':>8} {'cells/s':>10} {'of bound':>8}")
    rows = []
    for row in _timed(driver, kernels, copy_gb_s, bound_cells_s, large=not words.quick):
        bound = f"{row.bound_share:8.0%}" if row.bound_share is not None else ""
        cells = f"{row.cells_s:10.3g} {bound}" if row.cells_s else ""
        print(f"{row.name:32} {row.time_us:10.1f} {row.gb_s:8.1f} {row.copy_share:8.0%} {cells}".rstrip())
        rows.append(asdict(row))
    if words.json is not None:
        figures = {
            "gpu": info.name,
            "copy_gb_s": copy_gb_s,
            "bound_cells_s": bound_cells_s,
            "wrong": wrong,
            "rows": rows,
        }
        words.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 1 if wrong else 0


def _differs(desk: Desk, case: Case) -> bool:
    """Whether a result is not the reference's, which is told."""
    case.launch(desk.stream)
    apart, tolerance = case.check()
    fine = apart <= tolerance
    print(f"check {case.name:32} {'ok' if fine else 'WRONG'}: {apart:.3g} apart, at most {tolerance:.3g}")
    return not fine


def _timed(driver: Driver, kernels: Kernels, copy_gb_s: float, bound_cells_s: float, large: bool) -> Iterator[Measured]:
    desk = Desk(driver)
    try:
        for case in cases(desk, kernels, large):
            seconds = _median_s(desk, case.launch)
            gb_s, cells_s = case.moved_bytes / seconds / 1e9, case.cells / seconds
            share = cells_s / bound_cells_s if case.cells and bound_cells_s else None
            yield Measured(case.name, seconds * 1e6, gb_s, gb_s / copy_gb_s, cells_s, share)
    finally:
        desk.close()


def _median_s(desk: Desk, launch: Callable[[int], None]) -> float:
    driver, times = desk.driver, []
    for _ in range(3):  # code and clocks come in
        launch(desk.stream)
    for _ in range(REPEATS):
        start, end = driver.event(), driver.event()
        driver.record(start, desk.stream)
        launch(desk.stream)
        driver.record(end, desk.stream)
        driver.synchronize(desk.stream)
        times.append(driver.elapsed_ms(start, end) / 1e3)
    return statistics.median(times)


def _copy_gb_s(desk: Desk, size: int) -> float:
    """Bytes read and written a second by a copy of 16 bytes a thread."""
    copy = desk.driver.function(desk.driver.load_module(COPY), "copy")
    source, target = desk.room((size,), "uint8"), desk.room((size,), "uint8")
    arguments = [np.uint64(source.pointer), np.uint64(target.pointer), np.uint64(size // 16)]
    grid = (size // 16 // 256, 1, 1)

    def launch(stream: int) -> None:
        desk.driver.launch(copy, grid, (256, 1, 1), arguments, stream)

    return 2 * size / _median_s(desk, launch) / 1e9


def cases(desk: Desk, kernels: Kernels, large: bool) -> Iterator[Case]:
    """Every kernel once or in its variants; small ones have tails everywhere."""
    random = np.random.default_rng(1)
    yield from _dtw_cases(desk, kernels, random, large)
    yield from _resample_cases(desk, kernels, random, large)
    yield _project_case(desk, kernels, random, large)
    yield from _preprocess_cases(desk, kernels, random, large)
    yield _logmel_case(desk, kernels, random, large)
    yield _agreement_case(desk, kernels, random, large)


def apart(got: Any, wanted: Any) -> float:
    """The largest difference; equal infinities are no difference."""
    got, wanted = np.asarray(got, np.float64), np.asarray(wanted, np.float64)
    with np.errstate(invalid="ignore"):
        return float(np.where(got == wanted, 0.0, np.abs(got - wanted)).max(initial=0.0))


def _dtw_cases(desk: Desk, kernels: Kernels, random: np.random.Generator, large: bool) -> Iterator[Case]:
    pairs, n, m = (DTW_PAIRS, 1000, 1000) if large else (5, 37, 53)
    options = DtwOptions(open_end=True)
    for channels in (1, 4):
        a, b = (random.normal(size=(pairs, size, channels)).astype(np.float32) for size in (n, m))
        first, last = np.zeros((1, n), np.int32), np.full((1, n), m - 1, np.int32)
        lengths = np.full(pairs, n, np.int32), np.full(pairs, m, np.int32)
        given = DtwInput(*(desk.put(array) for array in (a, b, *lengths, first, last)))
        cost, end = desk.room((pairs,), "float32"), desk.room((pairs,), "int32")

        def check(
            a: Any = a, b: Any = b, first: Any = first, last: Any = last, cost: Any = cost, end: Any = end
        ) -> tuple[float, float]:
            wanted = [reference.dtw(x, y, first[0], last[0], options) for x, y in zip(a, b)]
            costs, ends = apart(desk.get(cost), [w.cost for w in wanted]), apart(desk.get(end), [w.end for w in wanted])
            return max(costs, ends), 0.0

        cells, moved = pairs * n * m, a.nbytes + b.nbytes
        warp = kernels.dtw_warp(given, cost, end, options)
        yield Case(f"dtw_warp, {channels} channels", warp, check, moved, cells)
        wave = kernels.dtw_wavefront(given, cost, end, options)
        yield Case(f"dtw_wavefront, {channels} channels", wave, check, moved, cells)
    path = desk.room((pairs, n, -(-m // 16)), "uint32")
    with_path = kernels.dtw_wavefront(given, cost, end, options, path)
    yield Case("dtw_wavefront_path, 4 channels", with_path, check, moved + cells // 4, cells)
    steps, count = desk.room((pairs, n + m, 2), "int32"), desk.room((pairs,), "int32")

    def check_steps() -> tuple[float, float]:
        got, counts = desk.get(steps), desk.get(count)
        wanted = [reference.dtw(x, y, first[0], last[0], options).steps for x, y in zip(a, b)]
        fine = all(np.array_equal(s[n + m - k :], w) for s, k, w in zip(got, counts, wanted))
        return float(not fine), 0.0

    trace = kernels.dtw_trace(path, given.a_length, end, steps, count)
    yield Case("dtw_trace", trace, check_steps, pairs * (n + m) * 12)


def _resample_cases(desk: Desk, kernels: Kernels, random: np.random.Generator, large: bool) -> Iterator[Case]:
    instants, channels = (1 << 20, 16) if large else (300, 3)
    instants_ns = np.sort(random.integers(0, instants * 1000, instants)).astype(np.int64)
    stamps_ns = np.sort(random.integers(0, instants * 1000, instants)).astype(np.int64)
    values = random.normal(size=(instants, channels)).astype(np.float32)
    at, stamps, samples = desk.put(instants_ns), desk.put(stamps_ns), desk.put(values)
    out, valid = desk.room((instants, channels), "float32"), desk.room((instants,), "uint8")
    for nearest in (False, True):
        launch = kernels.resample(at, [StreamArrays(stamps, samples, out, valid, 500, nearest)])

        def check(nearest: bool = nearest) -> tuple[float, float]:
            wanted = reference.resample(instants_ns, stamps_ns, values, 500, nearest)
            return max(apart(desk.get(out), wanted[0]), apart(desk.get(valid), wanted[1])), 0.0

        moved = 2 * values.nbytes + instants * 17
        yield Case(f"resample, {'nearest' if nearest else 'lines'}", launch, check, moved)
    seconds = 3600 if large else 0.1
    pcm = random.integers(-32768, 32768, int(48000 * seconds)).astype(np.int16)
    sound, heard = desk.put(pcm), desk.room((int(16000 * seconds),), "float32")

    def check_sound() -> tuple[float, float]:
        return apart(desk.get(heard), reference.resample_sound(pcm, heard.shape[0], 48000, 16000, 12345)), 0.0

    launch = kernels.resample_sound(sound, heard, 48000, 16000, 12345)
    yield Case("resample_sound, 48 to 16 kHz", launch, check_sound, pcm.nbytes + heard.shape[0] * 4)


def _project_case(desk: Desk, kernels: Kernels, random: np.random.Generator, large: bool) -> Case:
    count, height, width = (1 << 18, 1080, 1920) if large else (1000, 27, 45)
    points = (random.normal(size=(count, 4)) * 20).astype(np.float32)
    pose = np.array([[0, -1, 0, 0.1], [0, 0, -1, 0.2], [1, 0, 0, -0.3]], np.float32)
    camera = PinholeCamera(pose, width / 2, width / 2, width / 2, height / 2)
    kinds = {"uint64": 8, "float32": 4, "int32": 4}
    nearest, depth_m, intensity, index = (
        desk.room((height, width), kind) for kind in ("uint64", "float32", "float32", "int32")
    )
    launch = kernels.project(desk.put(points), camera, nearest, depth_m, intensity, index)

    def check() -> tuple[float, float]:
        pinhole = (camera.fx_px, camera.fy_px, camera.cx_px, camera.cy_px)
        wanted = reference.project(points, pose, pinhole, (height, width), 0.5)
        return max(apart(desk.get(got), want) for got, want in zip((depth_m, intensity, index), wanted)), 0.0

    moved = points.nbytes + height * width * (2 * kinds["uint64"] + 3 * 4)  # the cells of the minima stay in the cache
    return Case("project", launch, check, moved)


def _preprocess_cases(desk: Desk, kernels: Kernels, random: np.random.Generator, large: bool) -> Iterator[Case]:
    pictures, height, width = (32, 1080, 1920) if large else (2, 24, 40)
    for nv12, colour in ((False, RGB_OF_BGR), (True, RGB_OF_BT601)):
        shape = (pictures, height * 3 // 2, width) if nv12 else (pictures, height, width, 3)
        given = random.integers(0, 256, shape).astype(np.uint8)
        source = desk.put(given)
        for dtype, size in (("int8", (height // 2, width // 2)), ("float16", (height * 3 // 8, width * 3 // 8)),
                            ("float32", (height, width))):  # fmt: skip
            out = desk.room((pictures, 3, *size), dtype)
            launch = kernels.preprocess(source, out, Colours(colour, scale=(0.5,) * 3, offset=(-64.0,) * 3))

            def check(given: Any = given, out: Any = out, colour: Any = colour) -> tuple[float, float]:
                gain, bias = np.full(3, 0.5, np.float32), np.full(3, -64, np.float32)
                wanted = [reference.preprocess(one, out.shape[2:], colour, gain, bias, out.dtype) for one in given]
                return apart(desk.get(out), wanted), 0.0

            moved = given.nbytes + int(np.prod(out.shape)) * np.dtype(dtype).itemsize
            way = f"{'nv12' if nv12 else 'bgr'} to {dtype}, {size[1]} x {size[0]}"
            yield Case(f"preprocess, {way}", launch, check, moved)


def _logmel_case(desk: Desk, kernels: Kernels, random: np.random.Generator, large: bool) -> Case:
    clips, samples, steps = (512, 16000, 50) if large else (2, 1500, 5)
    pcm = (random.normal(size=(clips, samples)) * 0.1).astype(np.float32)
    bands = np.zeros((64, 257), np.float32)
    for band in range(64):
        bands[band, band * 4 : band * 4 + 6] = (1 / 12, 2 / 12, 3 / 12, 3 / 12, 2 / 12, 1 / 12)[: 257 - band * 4]
    host = logmel_tables(bands)
    tables = LogmelTables(**{name: desk.put(array) for name, array in host.items()})
    out = desk.room((clips, 64, steps), "float32")

    def check() -> tuple[float, float]:
        wanted = [reference.logmel(one, host["window"], bands, steps, LogmelOptions()) for one in pcm]
        return apart(desk.get(out), wanted), 1e-4

    moved = pcm.nbytes + clips * 64 * steps * 4
    return Case("logmel", kernels.logmel(desk.put(pcm), tables, out), check, moved)


def _agreement_case(desk: Desk, kernels: Kernels, random: np.random.Generator, large: bool) -> Case:
    sets, modalities, size = (1 << 15, 5, 192) if large else (7, 5, 50)
    embeddings = random.normal(size=(sets, modalities, size)).astype(np.float32)
    present = random.integers(0, 2, (sets, modalities)).astype(np.uint8)
    cosine = desk.room((sets, modalities * (modalities - 1) // 2), "float32")
    launch = kernels.agreement(desk.put(embeddings), desk.put(present), cosine)
    moved = embeddings.nbytes + present.nbytes + int(np.prod(cosine.shape)) * 4
    return Case(
        "agreement", launch, lambda: (apart(desk.get(cosine), reference.agreement(embeddings, present)), 0.0), moved
    )


if __name__ == "__main__":
    sys.exit(main())
