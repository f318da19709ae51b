"""Range images: the nearest return of each cell, wherever it stood in the sweep."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edge.preprocess import lidar_into

F32 = NDArray[np.float32]
VIEW: dict[str, Any] = {"azimuth_deg": 120, "highest_deg": 7.5, "lowest_deg": -24.5}


def at(azimuth_deg: float, elevation_deg: float, range_m: float) -> tuple[float, float, float, float]:
    """A point by its direction."""
    azimuth, elevation = math.radians(azimuth_deg), math.radians(elevation_deg)
    flat_m = range_m * math.cos(elevation)
    return flat_m * math.cos(azimuth), flat_m * math.sin(azimuth), range_m * math.sin(elevation), 0.5


def image(*points: tuple[float, float, float, float], rows: int = 16, columns: int = 256, **view: float) -> F32:
    out = np.full((2, rows, columns), 9.0, np.float32)
    lidar_into(out, np.array(points, np.float32).reshape(-1, 4), **{**VIEW, **view})
    return out


def cells(out: F32) -> list[tuple[int, int]]:
    return [(int(row), int(column)) for row, column in zip(*np.nonzero(out[0]))]


def test_no_points_are_an_empty_image() -> None:
    assert not image().any()


@pytest.mark.parametrize(
    ("azimuth_deg", "elevation_deg", "cell"),
    [
        (59.9, 7.4, (0, 0)),  # left and up: the first cell
        (-59.9, -24.4, (15, 255)),
        (0.1, 0.1, (3, 127)),
        (-0.1, -0.6, (4, 128)),
    ],
)
def test_left_is_the_first_column_and_up_the_first_row(
    azimuth_deg: float, elevation_deg: float, cell: tuple[int, int]
) -> None:
    assert cells(image(at(azimuth_deg, elevation_deg, 20.0))) == [cell]


@pytest.mark.parametrize(("azimuth_deg", "elevation_deg"), [(60.1, 0), (-60.1, 0), (180, 0), (0, 7.6), (0, -24.6)])
def test_what_lies_outside_the_view_is_left_out(azimuth_deg: float, elevation_deg: float) -> None:
    assert not image(at(azimuth_deg, elevation_deg, 20.0)).any()


def test_a_full_turn_has_a_column_for_every_direction() -> None:
    around = [at(-179.5 + step, 0.0, 20.0) for step in range(360)]
    out = image(*around, columns=360, rows=1, azimuth_deg=360)
    assert (out[0] > 0).all()


def test_values_are_the_inverse_range_and_the_height() -> None:
    out = image(at(0.1, -6.0, 10.0), at(20.1, 5.5, 120.0))
    (near, far) = ((row, column) for row, column in sorted(cells(out), reverse=True))
    assert out[0][near] == pytest.approx(0.5) and out[0][far] == pytest.approx(10 / 130)
    assert out[1][near] == pytest.approx(10 * math.sin(math.radians(-6.0)) / 3)
    assert out[1][far] == 1.0  # 11.5 m up, clipped


def test_the_nearest_return_of_a_cell_counts() -> None:
    out = image(at(0.1, 0.1, 30.0), at(0.12, 0.1, 10.0), at(0.11, 0.1, 20.0))
    assert cells(out) == [(3, 127)] and out[0, 3, 127] == pytest.approx(0.5)


@pytest.mark.parametrize(
    "broken", [(math.nan, 0, 0, 0), (math.inf, 0, 0, 0), (0, 0, 0, 0), (1e30, 0, 0, 0), (5, math.nan, 0, 0)]
)
def test_returns_that_are_none_are_left_out(broken: tuple[float, float, float, float]) -> None:
    assert cells(image(broken, at(0.1, 0.1, 10.0))) == [(3, 127)]


def clouds() -> st.SearchStrategy[list[tuple[float, float, float, float]]]:
    return st.lists(
        st.builds(at, st.floats(-70, 70), st.floats(-30, 12), st.sampled_from([0.5, 3.0, 3.0, 10.0, 90.0])),
        max_size=60,
    )


@settings(deadline=None)
@given(points=clouds(), order=st.randoms(use_true_random=False))
def test_the_order_of_the_points_is_of_no_consequence(points: list[Any], order: Any) -> None:
    shuffled = list(points)
    order.shuffle(shuffled)
    assert image(*points).tobytes() == image(*shuffled).tobytes()


@settings(deadline=None)
@given(points=clouds())
def test_each_cell_is_what_a_plain_loop_finds(points: list[Any]) -> None:
    out = image(*points)
    nearest: dict[tuple[int, int], float] = {}
    for x, y, z, _ in np.array(points, np.float32).reshape(-1, 4).astype(np.float64):
        azimuth_deg, elevation_deg = math.degrees(math.atan2(y, x)), math.degrees(math.atan2(z, math.hypot(x, y)))
        row, column = (7.5 - elevation_deg) / 2, (60 - azimuth_deg) * 256 / 120
        if min(row % 1, 1 - row % 1, column % 1, 1 - column % 1) < 1e-4:
            return  # on an edge: either side is right
        if 0 <= row < 16 and 0 <= column < 256:
            cell = (int(row), int(column))
            nearest[cell] = min(nearest.get(cell, math.inf), math.sqrt(x * x + y * y + z * z))
    assert cells(out) == sorted(nearest)
    for cell, range_m in nearest.items():
        assert out[0][cell] == pytest.approx(10 / (10 + range_m), rel=1e-5)


def test_two_rings_of_the_worlds_lidar_fall_into_each_row() -> None:
    """Rings from -24 to 7 degrees, one apart; a ray a degree."""
    rays = [at(turn + 0.25, up, 20.0) for up in range(-24, 8) for turn in range(-60, 60)]
    out = image(*rays, columns=120)
    assert (out[0] > 0).all()
