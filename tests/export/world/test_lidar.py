"""LiDAR ranges against the distances of the scene."""

from __future__ import annotations

import math

import numpy as np
import pytest

from export.world.camera.model import Builder
from export.world.camera.painter import Placed
from export.world.facets import Fan
from export.world.lidar import FORWARD_M, HIGHEST_RAD, LOWEST_RAD, UP_M, Lidar
from export.world.motion import Pose
from export.world.scene import Body, Scene
from export.world.weather import Atmosphere

CLEAR = Atmosphere("clear", "day", 1.0, 0.001, 0.0, (1.0, 0.0, 0.0))


def scene(*bodies: Body, pitch_rad: float = 0.0) -> Scene:
    pose = Pose(0.0, 0.0, 0.0, pitch_rad, 10.0, 0.0, 0.0)
    return Scene(0.0, pose, 300.0, -1.6, "urban", CLEAR, bodies, ())


def body(
    x: float, y: float, turn: float = 0.0, kind: str = "vehicle", size: tuple[float, float, float] = (8.0, 2.5, 3.0)
) -> Body:
    return Body(1, kind, "truck", "", x, y, turn, size, 0.0, False, 0)


def test_the_ground_is_flat_at_the_mounting_height() -> None:
    points = Lidar(1).sweep(scene(), 0)
    assert len(points) > 6_000
    assert np.abs(points[:, 2] + UP_M).max() < 0.1


def test_the_rear_of_a_vehicle_is_at_its_distance() -> None:
    points = Lidar(1).sweep(scene(body(24.0, 0.5)), 0)
    ahead = points[(points[:, 2] > -UP_M + 0.5) & (np.abs(points[:, 1] - 0.5) < 1.2) & (points[:, 0] > 0)]
    assert len(ahead) > 20
    assert np.median(ahead[:, 0]) + FORWARD_M == pytest.approx(24.0 - 4.0, abs=0.05)


def test_a_turned_vehicle_is_hit_on_its_turned_face() -> None:
    turn = math.radians(90.0)
    points = Lidar(1).sweep(scene(body(15.0, 0.0, turn)), 0)
    hits = points[(points[:, 2] > -UP_M + 0.5) & (points[:, 0] > 0)]
    assert np.median(hits[:, 0]) + FORWARD_M == pytest.approx(15.0 - 1.25, abs=0.05)
    assert np.ptp(hits[:, 1]) == pytest.approx(8.0, abs=0.7)


def test_a_vehicle_throws_a_shadow_into_the_sweep() -> None:
    points = Lidar(1).sweep(scene(body(12.0, 0.0)), 0)
    behind = (points[:, 0] > 17.0) & (np.abs(np.arctan2(points[:, 1], points[:, 0])) < 0.08) & (points[:, 2] < -1.0)
    assert not behind.any()


def test_a_pedestrian_is_seen_near_and_pitch_turns_the_sweep() -> None:
    person = body(8.0, -2.0, kind="pedestrian", size=(0.35, 0.55, 1.75))
    points = Lidar(1).sweep(scene(person), 0)
    near = (np.hypot(points[:, 0] + FORWARD_M - 8.0, points[:, 1] + 2.0) < 0.6) & (points[:, 2] > -UP_M + 0.2)
    assert near.sum() >= 5
    dipped = Lidar(1).sweep(scene(pitch_rad=0.02), 0)
    far = (dipped[:, 0] > 15.0) & (np.abs(dipped[:, 1]) < 2.0)
    rise = dipped[far, 2] + UP_M
    assert np.median(rise / dipped[far, 0]) == pytest.approx(0.02, abs=0.004)


def cube(x_m: float, y_m: float, size_m: float = 2.0) -> Placed:
    builder = Builder()
    half = 0.5 * size_m
    builder.prism((-half, -half, 0.0), (half, half, size_m), (0.0, 0.0, 0.0))
    return Placed(1, builder.build(), x_m, y_m, 0.0)


def even(columns: int, rings: int = 64) -> tuple[np.ndarray, np.ndarray]:
    azimuth = -math.pi + (np.arange(columns) + 0.5) * 2 * math.pi / columns
    return azimuth, np.linspace(LOWEST_RAD, HIGHEST_RAD, rings)


def test_more_rays_meet_the_same_world() -> None:
    few, many = Lidar(1).sweep(scene(body(24.0, 0.5)), 0), Lidar(1, 1024, 64).sweep(scene(body(24.0, 0.5)), 0)
    assert len(many) == pytest.approx(len(few) * 1024 * 64 / (360 * 32), rel=0.05)
    for points in (few, many):
        ahead = points[(points[:, 2] > -UP_M + 0.5) & (np.abs(points[:, 1] - 0.5) < 1.2) & (points[:, 0] > 0)]
        assert np.median(ahead[:, 0]) + FORWARD_M == pytest.approx(20.0, abs=0.05)


def test_a_sweep_that_reaches_less_far_aside_is_cast_on_the_same_grid() -> None:
    def azimuths(points: np.ndarray) -> np.ndarray:
        return np.unique(np.rint((np.arctan2(points[:, 1], points[:, 0]) / (2 * math.pi) + 0.5) * 1024 - 0.5))

    whole, part = (azimuths(Lidar(1, 1024, 32, None, half).sweep(scene(), 0)) for half in (math.pi, 0.5))
    assert set(part) < set(whole)
    assert len(part) == pytest.approx(1024 / (2 * math.pi), abs=1)


@pytest.mark.parametrize(("x_m", "y_m"), [(12.0, 0.0), (-9.0, 4.0), (-15.0, 0.3), (0.0, -7.0)])
def test_a_drawn_box_is_met_where_a_box_is(x_m: float, y_m: float) -> None:
    azimuth, elevation = even(1024)
    met_m, owner = Fan(azimuth, elevation).hits([cube(x_m, y_m)], (0.0, 0.0, UP_M), 0.0, 120.0)
    lidar = Lidar(1, 1024, 64)
    other_m, shine = np.full(met_m.shape, np.inf), np.zeros(met_m.shape)
    lidar._hit(lidar._directions, other_m, shine, UP_M, x_m + FORWARD_M, y_m, 0.0, (2.0, 2.0, 2.0), 0.0, 0.5)
    both = np.isfinite(met_m) & np.isfinite(other_m)
    assert both.sum() > 200
    assert (np.isfinite(met_m) != np.isfinite(other_m)).sum() <= 2  # rays along an edge
    assert np.abs(met_m[both] - other_m[both]).max() < 1e-6
    assert (owner[both] == 0).all() and (owner[~np.isfinite(met_m)] == -1).all()


def test_the_nearer_of_two_drawn_things_is_met() -> None:
    azimuth, elevation = even(720)
    met_m, owner = Fan(azimuth, elevation).hits([cube(30.0, 0.0), cube(15.0, 0.0)], (0.0, 0.0, 1.0), 0.0, 120.0)
    ahead = owner[np.abs(elevation) < 0.03][:, np.abs(azimuth) < 0.03]
    assert (ahead == 1).all()
    assert met_m[owner == 1].max() < 18.0


def test_a_roof_overhead_is_met_in_every_direction() -> None:
    azimuth, elevation = np.arange(360) * math.pi / 180 - math.pi, np.linspace(1.0, 1.5, 8)
    builder = Builder()
    builder.face([(20, -20, 5), (20, 20, 5), (-20, 20, 5), (-20, -20, 5)], (0.0, 0.0, 0.0), two_sided=True)
    met_m, _ = Fan(azimuth, elevation).hits([Placed(1, builder.build(), 0, 0, 0)], (0.0, 0.0, 1.0), 0.0, 120.0)
    assert np.abs(met_m * np.sin(elevation)[:, None] - 4.0).max() < 1e-6


def test_nothing_drawn_is_nothing_met() -> None:
    met_m, owner = Fan(*even(90, 8)).hits([], (0.0, 0.0, 1.0), 0.0, 120.0)
    assert np.isinf(met_m).all() and (owner == -1).all()
