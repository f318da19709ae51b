"""LiDAR ranges against the distances of the scene."""

from __future__ import annotations

import math

import numpy as np
import pytest

from export.world.lidar import FORWARD_M, UP_M, Lidar
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
