"""The projection kernels, emulated: bit-equal to the reference under any order of threads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edge.alignment import reference
from edge.alignment.kernel_inputs import PinholeCamera

CAM_SE3_LIDAR = np.array([[0, -1, 0, 0.1], [0, 0, -1, 0.2], [1, 0, 0, -0.3]], np.float32)  # looks along the LiDAR's x


def _check(bench: Any, points: Any, shape: tuple[int, int], pose: Any = CAM_SE3_LIDAR) -> list[Any]:
    height, width = shape
    pinhole = (width / 2, width / 2, width / 2 - 0.5, height / 2 - 0.5)
    nearest = bench.room(shape, "uint64")
    outputs = [bench.room(shape, kind) for kind in ("float32", "float32", "int32")]
    launch = bench.kernels.project(bench.put(points), PinholeCamera(pose, *pinhole), nearest, *outputs)
    found = bench.run(launch, *outputs)
    for got, wanted in zip(found, reference.project(points, pose, pinhole, shape, 0.5)):
        assert got.tobytes() == wanted.tobytes()
    return found


@pytest.mark.parametrize("count", [0, 1, 257, 5000])
@pytest.mark.parametrize("shape", [(1, 1), (17, 31), (60, 96)])
def test_sweeps_are_the_references(bench: Any, random: Any, count: int, shape: tuple[int, int]) -> None:
    _check(bench, (random.normal(size=(count, 4)) * 20).astype(np.float32), shape)


def test_of_returns_in_one_pixel_the_nearest_stays_then_the_first(bench: Any) -> None:
    ahead = np.array([[9, 0, 0, 1], [5, 0, 0, 2], [5, 0, 0, 3], [7, 0, 0, 4]] * 100, np.float32)
    depth_m, intensity, index = _check(bench, ahead, (8, 8))
    assert index.max() == 1
    assert depth_m[index == 1].tolist() == [np.float32(5) - np.float32(0.3)]
    assert intensity[index == 1].tolist() == [2.0]


def test_returns_behind_too_near_or_not_finite_do_not_count(bench: Any) -> None:
    bad = [-5, 0, 0.3, 0.75, np.nan, np.inf, -np.inf]  # the camera is 0.3 m ahead, and the nearest counts from 0.5 m
    points = np.array([[x, 0, 0, 1] for x in bad] + [[5, np.nan, 0, 1], [5, 0, np.inf, 1], [5, 1e38, 0, 1]], np.float32)
    depth_m, _, index = _check(bench, points, (8, 8))
    assert (index == -1).all() and (depth_m == 0).all()


def test_a_picture_without_pixels_is_nothing(bench: Any) -> None:
    _check(bench, np.ones((5, 4), np.float32), (0, 8))


def test_the_edges_of_pixels_are_at_halves(bench: Any) -> None:
    pose = np.eye(3, 4, dtype=np.float32)
    nearest, kinds = bench.room((1, 4), "uint64"), ("float32", "float32", "int32")
    outputs = [bench.room((1, 4), kind) for kind in kinds]
    u_px = np.array([-0.501, -0.5, 0.499, 0.5, 3.499, 3.5], np.float32)
    points = np.stack([u_px, u_px * 0, u_px * 0 + 1, u_px * 0], 1)
    launch = bench.kernels.project(bench.put(points), PinholeCamera(pose, 1, 1, 0, 0), nearest, *outputs)
    assert bench.run(launch, *outputs)[2].tolist() == [[1, 3, -1, 4]]
