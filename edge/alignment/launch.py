"""Launches the kernels of alignment: shapes are checked when a launch is made, and each frame only queues it.

A method of `Kernels` takes arrays on the device and gives a `Launch`; calling that with a stream queues the work.
Neither allocates on the device nor waits. What the kernels compute is said in `kernels/*.cu` and, as numpy, in
`reference.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edge.alignment import kernels as built
from edge.alignment.kernel_build import with_nvrtc
from edge.alignment.kernel_inputs import (
    BINS,
    Colours,
    DeviceArray,
    DtwInput,
    DtwOptions,
    LogmelOptions,
    LogmelTables,
    PinholeCamera,
    StreamArrays,
)
from edge.cuda import Driver
from edge.errors import DeviceError

WARP_COLUMNS: Final = 1024  # of dtw_warp: 32 a lane
SHARED_BYTES: Final = 48 << 10  # what any GPU gives a block unasked
SOUND_HZ: Final = 1 << 21  # see resample.cu
_DTW_DEFAULTS: Final = DtwOptions()
_LOGMEL_DEFAULTS: Final = LogmelOptions()
_TILE: Final = 256
_SOUND_TILE: Final = 1024
_MOST: Final = 2**31 - 1
Shape = Sequence["int | None"]


@dataclass(frozen=True, slots=True)
class Launch:
    """Kernels with their arguments, ready to be queued any number of times."""

    driver: Driver
    calls: tuple[tuple[Any, tuple[int, int, int], tuple[int, int, int], np.generic, int], ...]

    def __call__(self, stream: int) -> None:
        """Queue the kernels, one after the other."""
        for function, grid, block, params, shared_bytes in self.calls:
            self.driver.launch(function, grid, block, (params,), stream, shared_bytes)


class Kernels:
    """The kernels on one GPU; a family is loaded at the first launch that needs it.

    Args:
        driver: of the GPU.
        nvrtc: compile for this GPU instead of taking the built images.
    """

    def __init__(self, driver: Driver, nvrtc: bool = False) -> None:
        self._driver, self._nvrtc = driver, nvrtc
        self._modules: dict[str, Any] = {}

    def dtw_warp(
        self, given: DtwInput, cost: DeviceArray, end: DeviceArray, options: DtwOptions = _DTW_DEFAULTS
    ) -> Launch:
        """Costs and last columns of many pairs of at most 1024 columns.

        Args:
            cost, end: (pairs) float32, int32.
        """
        params = _dtw("dtw_warp", given, cost, end, None, options)
        if params["columns"] > WARP_COLUMNS:
            raise DeviceError(f"dtw_warp: expected at most {WARP_COLUMNS} columns, got {params['columns']}")
        name = "dtw_warp" if params["channels"] == 1 else "dtw_warp_channels"
        return self._launch(name, params, (_ceil(int(params["pairs"]), 4), 1, 1), (32, 4, 1))

    def dtw_wavefront(
        self,
        given: DtwInput,
        cost: DeviceArray,
        end: DeviceArray,
        options: DtwOptions = _DTW_DEFAULTS,
        path: DeviceArray | None = None,
    ) -> Launch:
        """The same for any number of columns, and with `path` every cell's move.

        Args:
            path: (pairs, rows, ceil(columns / 16)) uint32; rows at most 3072 with it, 4096 without.
        """
        name = "dtw_wavefront" if path is None else "dtw_wavefront_path"
        params = _dtw(name, given, cost, end, path, options)
        shared = int(params["rows"]) * (12 if path is None else 16)
        if shared > SHARED_BYTES:
            most = SHARED_BYTES // (12 if path is None else 16)
            raise DeviceError(f"{name}: expected at most {most} rows, got {params['rows']}")
        threads = min(256, 32 * _ceil(int(params["rows"]), 32))
        return self._launch(name, params, (int(params["pairs"]), 1, 1), (threads, 1, 1), shared)

    def dtw_trace(
        self, path: DeviceArray, a_length: DeviceArray, end: DeviceArray, steps: DeviceArray, count: DeviceArray
    ) -> Launch:
        """Paths as cells.

        Args:
            path, end: of `dtw_wavefront`.
            steps: (pairs, rows + columns, 2) int32; the last `count` of a pair are its cells (i, j), ascending.
            count: (pairs) int32, 0 without path.
        """
        what = "dtw_trace"
        pairs, rows, words = _expect(what, "path", path, (None, None, None), "uint32")
        most = _expect(what, "steps", steps, (pairs, None, 2), "int32")[1]
        columns = most - rows
        if _ceil(columns, 16) != words:
            raise DeviceError(f"{what}: expected steps for {rows} rows and 16 x {words} columns or less, got {most}")
        for name, array in (("a_length", a_length), ("end", end), ("count", count)):
            _expect(what, name, array, (pairs,), "int32")
        params = _params(built.DTW_TRACE, pairs=pairs, rows=rows, columns=columns)
        _set(params, path=path, a_length=a_length, end=end, steps=steps, count=count)
        return self._launch(what, params, (_ceil(pairs, 128), 1, 1), (128, 1, 1))

    def resample(self, instants_ns: DeviceArray, streams: Sequence[StreamArrays]) -> Launch:
        """Samples of up to 8 streams at instants.

        Args:
            instants_ns: (instants) int64.
        """
        what = "resample"
        (instants,) = _expect(what, "instants_ns", instants_ns, (None,), "int64")
        if not 1 <= len(streams) <= built.STREAMS:
            raise DeviceError(f"{what}: expected 1..{built.STREAMS} streams, got {len(streams)}")
        params = _params(built.RESAMPLE, instants=instants, streams=len(streams))
        _set(params, instants_ns=instants_ns)
        for k, stream in enumerate(streams):
            count, channels = _expect(what, f"values of stream {k}", stream.values, (None, None), "float32")
            _expect(what, f"stamps_ns of stream {k}", stream.stamps_ns, (count,), "int64")
            _expect(what, f"out of stream {k}", stream.out, (instants, channels), "float32")
            _expect(what, f"valid of stream {k}", stream.valid, (instants,), "uint8")
            of: Any = params["stream"][k]
            _set(of, stamps_ns=stream.stamps_ns, values=stream.values, out=stream.out, valid=stream.valid)
            of["tolerance_ns"], of["nearest"] = stream.tolerance_ns, stream.nearest
            of["count"], of["channels"] = count, channels
        return self._launch(what, params, (_ceil(instants, _TILE), len(streams), 1), (_TILE, 1, 1), _TILE * 8)

    def resample_sound(self, pcm: DeviceArray, out: DeviceArray, in_hz: int, out_hz: int, offset_ns: int = 0) -> Launch:
        """Sound at another rate.

        Args:
            pcm: (count) int16.
            out: (samples) float32, -1..1.
            in_hz, out_hz: rates, at most 2^21 without their common divisor.
            offset_ns: the first output sample's instant after the first input sample's.
        """
        what = "resample_sound"
        (count,), (samples,) = (
            _expect(what, "pcm", pcm, (None,), "int16"),
            _expect(what, "out", out, (None,), "float32"),
        )
        if in_hz < 1 or out_hz < 1:
            raise DeviceError(f"{what}: expected rates above 0 Hz, got {in_hz} and {out_hz}")
        phase = (offset_ns * in_hz * out_hz * 2 + 10**9) // (2 * 10**9)
        common = gcd(in_hz, out_hz, phase)
        in_hz, out_hz, phase = in_hz // common, out_hz // common, phase // common
        if max(in_hz, out_hz) > SOUND_HZ:
            raise DeviceError(f"{what}: expected rates of at most {SOUND_HZ} Hz, got {in_hz} and {out_hz}")
        params = _params(built.SOUND, count=count, samples=samples, phase=phase, in_hz=in_hz, out_hz=out_hz)
        _set(params, pcm=pcm, out=out)
        return self._launch(what, params, (_ceil(samples, _SOUND_TILE), 1, 1), (_TILE, 1, 1), 16)

    def project(
        self,
        points_lidar: DeviceArray,
        camera: PinholeCamera,
        nearest: DeviceArray,
        depth_m: DeviceArray,
        intensity: DeviceArray,
        index: DeviceArray,
        nearest_m: float = 0.5,
    ) -> Launch:
        """The nearest return of each pixel.

        Args:
            points_lidar: (points, 4) float32: x, y, z m, intensity; 16-byte aligned.
            nearest: (height, width) uint64, room to work in.
            depth_m, intensity, index: (height, width) float32, float32, int32.
            nearest_m: returns nearer in depth don't count; above 0.
        """
        what = "project"
        points, _ = _expect(what, "points_lidar", points_lidar, (None, 4), "float32")
        height, width = _expect(what, "nearest", nearest, (None, None), "uint64")
        for name, array, dtype in (("depth_m", depth_m, "float32"), ("intensity", intensity, "float32")):
            _expect(what, name, array, (height, width), dtype)
        _expect(what, "index", index, (height, width), "int32")
        pose = _constants(what, "cam_SE3_lidar", camera.cam_SE3_lidar, (3, 4))
        if points_lidar.pointer % 16:
            raise DeviceError(f"{what}: expected points_lidar at a multiple of 16, got {points_lidar.pointer:#x}")
        if not nearest_m > 0:
            raise DeviceError(f"{what}: expected nearest_m above 0, got {nearest_m}")
        params = _params(
            built.PROJECT, points=points, height=height, width=width, nearest_m=nearest_m,
            cam_SE3_lidar=pose.ravel(), fx_px=camera.fx_px, fy_px=camera.fy_px, cx_px=camera.cx_px, cy_px=camera.cy_px,
        )  # fmt: skip
        _set(params, points_lidar=points_lidar, nearest=nearest, depth_m=depth_m, intensity=intensity, index=index)
        pixels, block = (_ceil(height * width, 256), 1, 1), (256, 1, 1)
        clear = self._launch("project_clear", params, pixels, block)
        paint = self._launch("project_points", params, (_ceil(points, 256), 1, 1), block)
        resolve = self._launch("project_resolve", params, pixels, block)
        return Launch(self._driver, clear.calls + paint.calls + resolve.calls)

    def preprocess(self, source: DeviceArray, out: DeviceArray, colours: Colours) -> Launch:
        """Pictures as a network's input.

        Args:
            source: (pictures, height, width, 3) BGR or (pictures, height * 3 / 2, width) NV12, uint8.
            out: (pictures, 3, out_height, out_width) int8, float16 or float32.
        """
        what = "preprocess"
        nv12 = len(source.shape) == 3
        if nv12:
            pictures, lines, width = _expect(what, "source", source, (None, None, None), "uint8")
            height, pitch = lines * 2 // 3, width
            if lines % 3 or width % 2:
                raise DeviceError(f"{what}: expected NV12 of 3 n lines of even width, got {lines} x {width}")
        else:
            pictures, height, width, _ = _expect(what, "source", source, (None, None, None, 3), "uint8")
            lines, pitch = height, width * 3
        if out.dtype not in ("int8", "float16", "float32"):
            raise DeviceError(f"{what}: expected out int8, float16 or float32, got {out.dtype}")
        _, _, out_height, out_width = _expect(what, "out", out, (pictures, 3, None, None), out.dtype)
        if out.shape[0] and 0 in (height, width):
            raise DeviceError(f"{what}: expected pictures of some size, got {height} x {width}")
        if pictures > 65535:
            raise DeviceError(f"{what}: expected at most 65535 pictures, got {pictures}")
        step = colours.step if out.dtype == "int8" else 1.0
        scale, offset = (np.asarray(value, np.float64) / step for value in (colours.scale, colours.offset))
        params = _params(
            built.PREPROCESS, source_stride_bytes=lines * pitch, pitch_bytes=pitch, pictures=pictures, height=height,
            width=width, out_height=out_height, out_width=out_width, zero_point=colours.zero_point,
            colour=_constants(what, "matrix", colours.matrix, (3, 4)).ravel(),
            gain=_constants(what, "scale", scale, (3,)), bias=_constants(what, "offset", offset, (3,)),
        )  # fmt: skip
        _set(params, source=source, out=out)
        grid = (_ceil(out_width, 32), _ceil(out_height, 8), pictures)
        return self._launch(f"preprocess_{'nv12' if nv12 else 'bgr'}_{out.dtype}", params, grid, (32, 8, 1))

    def logmel(
        self, pcm: DeviceArray, tables: LogmelTables, out: DeviceArray, options: LogmelOptions = _LOGMEL_DEFAULTS
    ) -> Launch:
        """Sound as log-mel.

        Args:
            pcm: (clips, samples) float32.
            out: (clips, bands, steps) float32.
        """
        what = "logmel"
        clips, samples = _expect(what, "pcm", pcm, (None, None), "float32")
        _, bands, steps = _expect(what, "out", out, (clips, None, None), "float32")
        _expect(what, "window", tables.window, (512,), "float32")
        _expect(what, "twiddle", tables.twiddle, (BINS, 2), "float32")
        _expect(what, "weights", tables.weights, (None,), "float32")
        for name, array in (("first", tables.first), ("count", tables.count), ("offset", tables.offset)):
            _expect(what, name, array, (bands,), "int32")
        if clips > 65535 or options.hop < 1 or not options.floor > 0:
            got = f"{clips}, {options.hop} and {options.floor}"
            raise DeviceError(f"{what}: expected at most 65535 clips, a hop of 1 or more, a floor above 0, got {got}")
        params = _params(
            built.LOGMEL, clips=clips, samples=samples, steps=steps, bands=bands, hop=options.hop, lead=options.lead,
            floor_added=options.floor_added, floor=options.floor, shift=options.shift, gain=options.gain,
        )  # fmt: skip
        _set(params, pcm=pcm, window=tables.window, twiddle=tables.twiddle, first=tables.first, count=tables.count)
        _set(params, offset=tables.offset, weights=tables.weights, out=out)
        return self._launch(what, params, (steps if bands else 0, clips, 1), (128, 1, 1), (512 + BINS) * 4)

    def agreement(self, embeddings: DeviceArray, present: DeviceArray, cosine: DeviceArray) -> Launch:
        """The cosine of every two modalities that are present.

        Args:
            embeddings: (sets, modalities, size) float32.
            present: (sets, modalities) uint8.
            cosine: (sets, modalities * (modalities - 1) / 2) float32.
        """
        what = "agreement"
        sets, modalities, size = _expect(what, "embeddings", embeddings, (None, None, None), "float32")
        _expect(what, "present", present, (sets, modalities), "uint8")
        pairs = modalities * (modalities - 1) // 2
        _expect(what, "cosine", cosine, (sets, pairs), "float32")
        params = _params(built.AGREEMENT, sets=sets, modalities=modalities, size=size)
        _set(params, embeddings=embeddings, present=present, cosine=cosine)
        return self._launch(what, params, (_ceil(sets * pairs, 8), 1, 1), (32, 8, 1))

    def _launch(
        self,
        name: str,
        params: NDArray[np.void],
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        shared_bytes: int = 0,
    ) -> Launch:
        """Nothing at all for an empty grid, which CUDA refuses."""
        function = self._function(name)
        scalar: Any = params[()]
        if 0 in grid:
            return Launch(self._driver, ())
        return Launch(self._driver, ((function, grid, block, scalar, shared_bytes),))

    def _function(self, name: str) -> Any:
        [family] = [family for family, names in built.FAMILIES.items() if name in names]
        if family not in self._modules:
            self._modules[family] = self._driver.load_module(self._image(family))
        return self._driver.function(self._modules[family], name)

    def _image(self, family: str) -> bytes:
        device = self._driver.device()
        if self._nvrtc:
            return with_nvrtc(family, device.sm)
        if device.cuda < built.DRIVER:
            wanted, got = (".".join(map(str, version)) for version in (built.DRIVER, device.cuda))
            raise DeviceError(f"kernels: expected a driver of CUDA {wanted} or newer, got {got}; compile with NVRTC")
        return built.image(family)


def _dtw(
    what: str, given: DtwInput, cost: DeviceArray, end: DeviceArray, path: DeviceArray | None, options: DtwOptions
) -> NDArray[np.void]:
    pairs, rows, channels = _expect(what, "a", given.a, (None, None, None), "float32")
    columns = _expect(what, "b", given.b, (pairs, None, channels), "float32")[1]
    for name, array in (("a_length", given.a_length), ("b_length", given.b_length), ("end", end)):
        _expect(what, name, array, (pairs,), "int32")
    _expect(what, "cost", cost, (pairs,), "float32")
    shared_band = bool(given.first.shape) and given.first.shape[0] == 1
    for name, array in (("first", given.first), ("last", given.last)):
        _expect(what, name, array, (1 if shared_band else pairs, rows), "int32")
    params = _params(
        built.DTW, pairs=pairs, rows=rows, columns=columns, channels=channels, band_stride=0 if shared_band else rows,
        absolute=options.absolute, symmetric2=options.symmetric2, open_begin=options.open_begin,
        open_end=options.open_end,
    )  # fmt: skip
    _set(params, a=given.a, b=given.b, a_length=given.a_length, b_length=given.b_length, first=given.first)
    _set(params, last=given.last, cost=cost, end=end)
    if path is not None:
        _expect(what, "path", path, (pairs, rows, _ceil(columns, 16)), "uint32")
        _set(params, path=path)
    return params


def _params(dtype: np.dtype[Any], **values: Any) -> NDArray[np.void]:
    params: NDArray[np.void] = np.zeros((), dtype)
    for name, value in values.items():
        params[name] = value
    return params


def _set(params: Any, **arrays: DeviceArray) -> None:
    for name, array in arrays.items():
        params[name] = array.pointer


def _expect(what: str, name: str, array: DeviceArray, shape: Shape, dtype: str) -> tuple[int, ...]:
    """The shape of an array, which must be this one (None: any size)."""
    fits = len(array.shape) == len(shape) and all(want in (None, got) for want, got in zip(shape, array.shape))
    if not fits or array.dtype != dtype:
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        raise DeviceError(f"{what}: expected {name} ({wanted}) {dtype}, got {array.shape} {array.dtype}")
    if max((*array.shape, 0)) > _MOST:
        raise DeviceError(f"{what}: expected {name} of at most {_MOST} a dimension, got {array.shape}")
    if not array.pointer and 0 not in array.shape:
        raise DeviceError(f"{what}: expected {name} in device memory, got a null pointer")
    return array.shape


def _constants(what: str, name: str, values: ArrayLike, shape: tuple[int, ...]) -> NDArray[np.float32]:
    array = np.asarray(values, np.float32)
    if array.shape != shape:
        raise DeviceError(f"{what}: expected {name} {shape}, got {array.shape}")
    return array


def _ceil(size: int, part: int) -> int:
    return -(-size // part)
