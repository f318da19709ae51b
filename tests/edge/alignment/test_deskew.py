"""A sweep at one instant: what stands stays put, however the vehicle drove while the head turned."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.alignment.deskew import azimuth_offsets, deskewed, deskewed_by_imu
from edge.errors import AlignmentError
from edge.samples import ImuSample

F32 = np.float32
SPEEDS = st.floats(-10, 40)
TURNS = st.floats(-0.6, 0.6)


def driven(speed_mps: float, yaw_rate_radps: float, offset_s: float) -> tuple[float, float, float]:
    """x, y, heading of a vehicle that was at the origin at offset 0, by small steps."""
    steps = 2000
    step_s = offset_s / steps
    headings = yaw_rate_radps * (np.arange(steps) + 0.5) * step_s
    x = float((speed_mps * step_s * np.cos(headings)).sum())
    return x, float((speed_mps * step_s * np.sin(headings)).sum()), yaw_rate_radps * offset_s


def measured(world: np.ndarray, speed_mps: float, yaw_rate_radps: float, offsets_s: np.ndarray) -> np.ndarray:
    """Points that stand, as the moving vehicle sees each at its own instant."""
    seen = world.copy()
    for i, offset_s in enumerate(offsets_s.tolist()):
        x, y, heading = driven(speed_mps, yaw_rate_radps, offset_s)
        c, s = math.cos(heading), math.sin(heading)
        dx, dy = world[i, 0] - x, world[i, 1] - y
        seen[i, :2] = c * dx + s * dy, c * dy - s * dx
    return seen


WORLD = np.array([[10, 0, 1, 0.1], [0, 20, -1, 0.2], [-30, 5, 0, 0.3], [15, -15, 2, 0.4]], F32)
OFFSETS_S = np.array([-0.05, -0.01, 0.02, 0.05])


@settings(max_examples=50)
@given(SPEEDS, TURNS)
def test_what_stands_is_put_where_it_stands(speed_mps: float, yaw_rate_radps: float) -> None:
    smeared = measured(WORLD, speed_mps, yaw_rate_radps, OFFSETS_S)
    np.testing.assert_allclose(deskewed(smeared, OFFSETS_S, speed_mps, yaw_rate_radps), WORLD, atol=2e-4)


@settings(max_examples=30)
@given(SPEEDS, TURNS)
def test_imu_and_constant_turn_agree_where_the_turn_is_constant(speed_mps: float, yaw_rate_radps: float) -> None:
    imu = [ImuSample(10_000_000 * i, i, (0.0, 0.0, 9.8), (0.0, 0.0, yaw_rate_radps)) for i in range(12)]
    by_imu = deskewed_by_imu(WORLD, OFFSETS_S, 55_000_000, imu, speed_mps)
    np.testing.assert_allclose(by_imu, deskewed(WORLD, OFFSETS_S, speed_mps, yaw_rate_radps), atol=5e-3)


def test_a_pitching_vehicle_needs_its_imu() -> None:
    rate_radps = 0.3
    imu = [ImuSample(10_000_000 * i, i, (0.0, 0.0, 9.8), (0.0, rate_radps, 0.0)) for i in range(12)]
    turn = rate_radps * 0.05
    moved = deskewed_by_imu(np.array([[20, 0, 0, 1]], F32), np.array([0.05]), 55_000_000, imu, 0.0)
    np.testing.assert_allclose(moved[0, :3], [20 * math.cos(turn), 0, -20 * math.sin(turn)], atol=1e-3)


def test_one_offset_moves_a_whole_sweep() -> None:
    moved = deskewed(WORLD, -0.1, 10.0, 0.0)
    np.testing.assert_allclose(moved[:, 0], WORLD[:, 0] - 1.0, atol=1e-5)
    assert (moved[:, 1:] == WORLD[:, 1:]).all()


def test_a_lidar_before_the_axle_swings_sideways() -> None:
    standing = deskewed(np.array([[0.0, 0.0, 0.0]], F32), 0.1, 0.0, 0.5, forward_m=2.0)
    np.testing.assert_allclose(standing[0, :2], [2 * math.cos(0.05) - 2, 2 * math.sin(0.05)], atol=1e-5)


def test_input_is_left_alone_and_further_columns_are_kept() -> None:
    before = WORLD.copy()
    moved = deskewed(WORLD, OFFSETS_S, 20.0, 0.1)
    assert (before == WORLD).all()
    assert moved.dtype == F32
    assert (moved[:, 3] == WORLD[:, 3]).all()


@pytest.mark.parametrize("clockwise", [False, True])
def test_a_revolution_is_spread_over_its_period(clockwise: bool) -> None:
    azimuth = np.linspace(-math.pi + 0.01, math.pi - 0.01, 50)
    points = np.stack([np.cos(azimuth), np.sin(azimuth)], 1).astype(F32)
    offsets_s = azimuth_offsets(points, 0.1, clockwise=clockwise)
    assert abs(offsets_s).max() < 0.05
    assert (np.diff(offsets_s) < 0).all() if clockwise else (np.diff(offsets_s) > 0).all()
    assert abs(offsets_s[np.abs(azimuth).argmin()]) < 2e-3


def test_nothing_in_nothing_out_and_nan_stays_alone() -> None:
    none = np.zeros((0, 4), F32)
    assert deskewed(none, np.zeros(0), 10.0, 0.1).shape == (0, 4)
    imu = [ImuSample(0, 0, (0.0, 0.0, 9.8), (0.0, 0.0, 0.1))]
    assert deskewed_by_imu(none, np.zeros(0), 0, imu, 10.0).shape == (0, 4)
    broken = WORLD.copy()
    broken[1, 0] = math.nan
    assert np.isfinite(deskewed(broken, OFFSETS_S, 10.0, 0.1)).all(axis=1).tolist() == [True, False, True, True]


def test_without_imu_or_period_is_refused_in_one_line() -> None:
    with pytest.raises(AlignmentError, match="expected IMU samples"):
        deskewed_by_imu(WORLD, OFFSETS_S, 0, [], 1.0)
    with pytest.raises(AlignmentError, match="expected a revolution to take time"):
        azimuth_offsets(WORLD, 0.0)
