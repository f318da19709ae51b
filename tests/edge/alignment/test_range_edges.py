"""Edges of a sweep: where things end and where they stand, and none where a surface only slopes away."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edge.alignment.projection import Rig
from edge.alignment.range_edges import FOOT, LEFT, RIGHT, TOP, RangeEdges, range_edges

F32 = np.float32
HEIGHT_M, STEP_RAD = 1.8, math.radians(0.8)
CAM_SE3_LIDAR = np.array([[0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]], np.float64)
TOWER = (30.0, -60.0, -20.0, 20.0)  # beside the picture; tells that the upper rings are there
RIG = Rig(500.0, 500.0, 320.0, 192.0, 640, 384, CAM_SE3_LIDAR)


Wall = tuple[float, float, float, float]


def sweep(walls: list[Wall], is_clockwise: bool = False, top_first: bool = False) -> np.ndarray:
    """A flat road and walls across it (distance, right end, left end, height; m), ring by ring, under an empty sky."""
    azimuths = np.arange(-70, 70) * STEP_RAD + 0.3 * STEP_RAD
    elevations = np.arange(-28, 9) * STEP_RAD
    azimuths, elevations = azimuths[:: -1 if is_clockwise else 1], elevations[:: -1 if top_first else 1]
    rings = []
    for elevation in elevations:
        direction = np.stack(
            [math.cos(elevation) * np.cos(azimuths), math.cos(elevation) * np.sin(azimuths),
             np.full(len(azimuths), math.sin(elevation))], 1,
        )  # fmt: skip
        reach = np.full(len(azimuths), HEIGHT_M / -math.sin(elevation) if elevation < 0 else np.inf)
        for distance, right, left, height in walls:
            at = distance / direction[:, 0]
            y, z = at * direction[:, 1], at * direction[:, 2]
            hit = (y > right) & (y < left) & (z < height - HEIGHT_M) & (at < reach)
            reach = np.where(hit, at, reach)
        kept = reach < 120
        rings.append(direction[kept] * reach[kept, None])
    return np.concatenate(rings).astype(F32)


def of(edges: RangeEdges, kind: int) -> np.ndarray:
    return edges.points_lidar[edges.kinds == kind]


@pytest.mark.parametrize("is_clockwise", [False, True])
@pytest.mark.parametrize("top_first", [False, True])
def test_a_wall_ends_left_right_above_and_stands_on_the_road(is_clockwise: bool, top_first: bool) -> None:
    edges = range_edges(RIG, sweep([(20.0, -3.0, 4.0, 2.6), TOWER], is_clockwise, top_first))
    within = 20.0 * STEP_RAD
    assert len(of(edges, LEFT)) >= 4
    assert len(of(edges, RIGHT)) >= 4
    np.testing.assert_allclose(of(edges, LEFT)[:, 1], 4.0, atol=within)
    np.testing.assert_allclose(of(edges, RIGHT)[:, 1], -3.0, atol=within)
    np.testing.assert_allclose(of(edges, TOP)[:, 2], 2.6 - HEIGHT_M, atol=within)
    assert len(of(edges, TOP)) >= 10


def test_a_foot_lies_between_no_two_rays() -> None:
    feet = of(range_edges(RIG, sweep([(20.0, -3.0, 4.0, 2.6)])), FOOT)
    assert len(feet) >= 10
    np.testing.assert_allclose(feet[:, 0], 20.0, atol=0.01)
    np.testing.assert_allclose(feet[:, 2], -HEIGHT_M, atol=0.01)


def test_an_empty_road_has_no_edges() -> None:
    assert len(range_edges(RIG, sweep([])).kinds) == 0


def test_a_jump_to_a_wall_behind_is_an_edge_as_one_to_the_sky_is() -> None:
    alone = range_edges(RIG, sweep([(15.0, -2.0, 2.0, 2.6), TOWER]))
    before = range_edges(RIG, sweep([(15.0, -2.0, 2.0, 2.6), TOWER, (40.0, -9.0, 30.0, 9.0)]))
    for kind in (LEFT, RIGHT, TOP):
        ends = [places[places[:, 0] < 16.0] for places in (of(alone, kind), of(before, kind))]
        assert len(ends[1]) >= 0.8 * len(ends[0]) > 4
        np.testing.assert_allclose(ends[1].mean(axis=0), ends[0].mean(axis=0), atol=0.3)


def test_what_is_too_near_or_too_far_has_no_edges() -> None:
    for distance in (4.0, 90.0):
        edges = range_edges(RIG, sweep([(distance, -0.1 * distance, 0.1 * distance, 12.0)]))
        assert len(edges.kinds) == 0


def test_points_that_are_not_finite_change_nothing_elsewhere() -> None:
    points = sweep([(20.0, -3.0, 4.0, 2.6)])
    broken = np.concatenate([np.full((5, 3), math.nan, F32), points, np.full((5, 3), math.inf, F32)])
    assert range_edges(RIG, broken).points_lidar.tobytes() == range_edges(RIG, points).points_lidar.tobytes()


@pytest.mark.parametrize("count", [0, 1, 49, 50, 200])
def test_points_without_rings_do_no_harm(count: int) -> None:
    points = np.random.default_rng(count).uniform([5, -3, -1], [30, 3, 1], (count, 3)).astype(F32)
    assert len(range_edges(RIG, points).kinds) <= 4 * count
    one_ring = np.stack([np.full(count, 10.0), np.linspace(-3, 3, count), np.zeros(count)], 1).astype(F32)
    assert len(range_edges(RIG, one_ring).kinds) == 0


def test_one_sweep_makes_the_same_bytes_again() -> None:
    points = sweep([(20.0, -3.0, 4.0, 2.6)])
    assert range_edges(RIG, points).points_lidar.tobytes() == range_edges(RIG, points.copy()).points_lidar.tobytes()
