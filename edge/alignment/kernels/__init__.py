"""The CUDA kernels of alignment: which there are, what their parameters look like, and the built images.

Each `.cu` is a family with one params struct (two in `dtw` and `resample`); its numpy twin is here, field by field, and
the tests hold the two together. `python -m edge.alignment.kernel_build` makes the `.fatbin` files and their manifest.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import numpy as np

from edge.errors import DeviceError

FOLDER: Final = Path(__file__).resolve().parent
HEADER: Final = "kernel.cuh"
MANIFEST: Final = "manifest.json"
DRIVER: Final = (13, 0)  # CUDA that a driver must serve to load what nvcc 13.0 made
STREAMS: Final = 8  # of one resample launch

_POINTER, _INT, _LONG, _FLOAT = np.uint64, np.int32, np.int64, np.float32


def _struct(*fields: tuple[Any, ...]) -> np.dtype[Any]:
    return np.dtype(list(fields), align=True)


def _of(kind: Any, names: str) -> list[tuple[str, Any]]:
    return [(name, kind) for name in names.split()]


DTW: Final = _struct(
    *_of(_POINTER, "a b a_length b_length first last cost end path"),
    *_of(_INT, "pairs rows columns channels band_stride absolute symmetric2 open_begin open_end"),
)
DTW_TRACE: Final = _struct(*_of(_POINTER, "path a_length end steps count"), *_of(_INT, "pairs rows columns"))
RESAMPLE_STREAM: Final = _struct(
    *_of(_POINTER, "stamps_ns values out valid"), ("tolerance_ns", _LONG), *_of(_INT, "count channels nearest")
)
RESAMPLE: Final = _struct(
    ("instants_ns", _POINTER), *_of(_INT, "instants streams"), ("stream", RESAMPLE_STREAM, (STREAMS,))
)
SOUND: Final = _struct(*_of(_POINTER, "pcm out"), *_of(_LONG, "count samples phase"), *_of(_INT, "in_hz out_hz"))
PROJECT: Final = _struct(
    *_of(_POINTER, "points_lidar nearest depth_m intensity index"),
    ("cam_SE3_lidar", _FLOAT, (12,)),
    *_of(_FLOAT, "fx_px fy_px cx_px cy_px nearest_m"),
    *_of(_INT, "points height width"),
)
PREPROCESS: Final = _struct(
    *_of(_POINTER, "source out"),
    ("source_stride_bytes", _LONG),
    *_of(_INT, "pitch_bytes pictures height width out_height out_width zero_point"),
    ("colour", _FLOAT, (12,)),
    ("gain", _FLOAT, (3,)),
    ("bias", _FLOAT, (3,)),
)
LOGMEL: Final = _struct(
    *_of(_POINTER, "pcm window twiddle first count offset weights out"),
    *_of(_INT, "clips samples steps hop lead bands floor_added"),
    *_of(_FLOAT, "floor shift gain"),
)
AGREEMENT: Final = _struct(*_of(_POINTER, "embeddings present cosine"), *_of(_INT, "sets modalities size"))

# family -> kernel -> its params; each family is the `.cu` of its name.
FAMILIES: Final[dict[str, dict[str, np.dtype[Any]]]] = {
    "dtw": {
        "dtw_warp": DTW,
        "dtw_warp_channels": DTW,
        "dtw_wavefront": DTW,
        "dtw_wavefront_path": DTW,
        "dtw_trace": DTW_TRACE,
    },
    "resample": {"resample": RESAMPLE, "resample_sound": SOUND},
    "project": {"project_clear": PROJECT, "project_points": PROJECT, "project_resolve": PROJECT},
    "preprocess": {
        f"preprocess_{source}_{stored}": PREPROCESS
        for source in ("bgr", "nv12")
        for stored in ("int8", "float16", "float32")
    },
    "logmel": {"logmel": LOGMEL},
    "agreement": {"agreement": AGREEMENT},
}


def manifest() -> dict[str, Any]:
    """What `kernel_build` wrote: the digests of sources and images, the compiler, registers and spills."""
    try:
        read: dict[str, Any] = json.loads((FOLDER / MANIFEST).read_text())
    except (OSError, ValueError) as error:
        raise DeviceError(f"kernels: expected the manifest of a build, got: {error}") from None
    return read


def image(family: str) -> bytes:
    """The built fatbin of a family."""
    try:
        return (FOLDER / f"{family}.fatbin").read_bytes()
    except OSError as error:
        raise DeviceError(f"kernels: expected a built image of {family}, got: {error}") from None
