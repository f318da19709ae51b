"""The picture kernels, emulated: bit-equal to the reference under any order of threads, and what OpenCV does."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest

from edge.alignment import reference
from edge.alignment.kernel_inputs import RGB_OF_BGR, RGB_OF_BT601, Colours
from edge.preprocess import image_into

SIZES = [((24, 40), (12, 20)), ((24, 40), (8, 8)), ((24, 40), (9, 33)), ((24, 40), (24, 40)), ((24, 40), (30, 70))]


def _picture(random: Any, size: tuple[int, int], nv12: bool, pictures: int = 2) -> Any:
    height, width = size
    shape = (pictures, height * 3 // 2, width) if nv12 else (pictures, height, width, 3)
    return random.integers(0, 256, shape).astype(np.uint8)


def _run(bench: Any, source: Any, size: tuple[int, int], dtype: str, colours: Colours) -> Any:
    out = bench.room((len(source), 3, *size), dtype)
    [got] = bench.run(bench.kernels.preprocess(bench.put(source), out, colours), out)
    return got


@pytest.mark.parametrize("dtype", ["int8", "float16", "float32"])
@pytest.mark.parametrize("nv12", [False, True])
@pytest.mark.parametrize(("size", "out_size"), SIZES)
def test_pictures_are_the_references(bench: Any, random: Any, size: Any, out_size: Any, nv12: bool, dtype: str) -> None:
    source = _picture(random, size, nv12)
    matrix = np.asarray(RGB_OF_BT601 if nv12 else RGB_OF_BGR, np.float32)
    scale, offset = np.array([0.017, 0.0175, 0.0174]), np.array([-2.1, -2.0, -1.8])
    step, zero_point = (0.02, 3) if dtype == "int8" else (1.0, 0)
    got = _run(bench, source, out_size, dtype, Colours(matrix, scale, offset, 0.02, zero_point))
    gain, bias = (np.asarray(value / step, np.float32) for value in (scale, offset))
    for one, from_one in zip(got, source):
        wanted = reference.preprocess(from_one, out_size, matrix, gain, bias, dtype, zero_point)
        assert one.tobytes() == wanted.tobytes()


@pytest.mark.parametrize(("size", "out_size"), SIZES)
def test_resizing_is_the_cpus_within_its_rounding(bench: Any, random: Any, size: Any, out_size: Any) -> None:
    source = cv2.GaussianBlur(_picture(random, size, False, 1)[0], (5, 5), 2)
    resized = np.empty((*out_size, 3), np.uint8)
    image_into(resized, source)
    [got] = _run(bench, source[None], out_size, "float32", Colours(np.eye(3, 4)))
    assert np.abs(got - np.moveaxis(resized.astype(np.float32), 2, 0)).max() <= 1.0  # it rounds to whole numbers


def test_nv12_is_the_rgb_that_opencv_makes_of_it(bench: Any, random: Any) -> None:
    source = np.maximum(_picture(random, (16, 24), True, 1), 16)  # OpenCV takes luma below black as black
    wanted = np.moveaxis(cv2.cvtColor(source[0], cv2.COLOR_YUV2RGB_NV12), 2, 0).astype(np.float32)
    [got] = _run(bench, source, (16, 24), "float32", Colours(RGB_OF_BT601))
    assert np.abs(got - wanted).max() <= 1.0  # OpenCV computes in whole numbers


def test_int8_rounds_halves_to_even_and_saturates(bench: Any) -> None:
    row = np.array([1, 3, 5, 255, 0, 0], np.uint8)
    source = np.repeat(row[None, None, :, None], 3, 3)
    [got] = _run(bench, source, (1, 6), "int8", Colours(RGB_OF_BGR, (0.5,) * 3, (0.0,) * 3, 1.0, 10))
    assert got[0, 0].tolist() == [10, 12, 12, 127, 10, 10]
    [got] = _run(bench, source, (1, 6), "int8", Colours(RGB_OF_BGR, (-2.0,) * 3, (0.0,) * 3, 1.0, 0))
    assert got[0, 0].tolist() == [-2, -6, -10, -128, 0, 0]


def test_the_emulated_half_is_numpys(bench: Any) -> None:
    source = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 1, 256, 3)
    for scale in (1e-9, 3.3e-8, 1e-6, 0.37, 256.9, 257.0, 1e4, -0.013):
        [got] = _run(bench, source, (1, 256), "float16", Colours(RGB_OF_BGR, (scale,) * 3, (0.0,) * 3))
        with np.errstate(over="ignore"):
            wanted = (np.arange(256, dtype=np.float32) * np.float32(scale)).astype(np.float16)
        assert np.array_equal(got[0, 0], wanted)


def test_no_pictures_are_no_launch(bench: Any, random: Any) -> None:
    assert len(_run(bench, _picture(random, (4, 4), False, 0), (2, 2), "int8", Colours(RGB_OF_BGR))) == 0
