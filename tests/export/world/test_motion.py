"""IMU, GNSS and the bus against the motion that the truth tells."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edge.drive import topics
from edge.samples import CanFrame, GnssFix, ImuSample, VehicleState
from export.world import can
from export.world.delivery import WorldEvent
from export.world.simulate import WorldConfig, simulate

SECONDS = 6.0


@pytest.fixture(scope="module")
def events() -> list[WorldEvent]:
    return list(simulate(WorldConfig(6, SECONDS, "crossing", width_px=64, height_px=64, lidar=False), encode=False))


def test_imu_integrates_to_the_truths_motion(events: list[WorldEvent]) -> None:
    imu = sorted((e.sample for e in events if isinstance(e.sample, ImuSample)), key=lambda s: s.seq)
    truth = [e.message for e in events if e.topic == topics.TRUTH]
    accel, gyro = np.array([s.accel_mps2 for s in imu]), np.array([s.gyro_radps for s in imu])
    assert abs(accel[:, 2].mean() - 9.81) < 0.1
    heading = truth[0].heading_rad + np.cumsum(gyro[:, 2]) * 0.01
    speed = truth[0].speed_mps + np.cumsum(accel[:, 0]) * 0.01
    turned = truth[-1].heading_rad - truth[0].heading_rad
    assert heading[-1] - truth[0].heading_rad == pytest.approx(turned, abs=0.05)
    at = [5 * t.frame_sequence for t in truth]
    # the nose dips while braking and gravity shows up lengthwise, as on a real vehicle: some m/s of slack
    assert np.abs(speed[at] - [t.speed_mps for t in truth]).max() < 1.0
    assert min(t.acceleration_mps2 for t in truth) < -3.0  # the drive does brake hard


def test_truth_speed_is_the_change_of_its_position(events: list[WorldEvent]) -> None:
    truth = [e.message for e in events if e.topic == topics.TRUTH]
    for a, b in zip(truth, truth[2:]):
        moved = math.hypot(b.east_m - a.east_m, b.north_m - a.north_m) / 0.1
        assert moved == pytest.approx(0.5 * (a.speed_mps + b.speed_mps), abs=0.35)


def test_gnss_follows_the_truth_on_the_ellipsoid(events: list[WorldEvent]) -> None:
    fixes = sorted((e.sample for e in events if isinstance(e.sample, GnssFix)), key=lambda s: s.seq)
    truth = {e.message.frame_sequence: e.message for e in events if e.topic == topics.TRUTH}
    first, last = fixes[0], fixes[-1]
    latitude = math.radians(first.latitude_deg)
    north = math.radians(last.latitude_deg - first.latitude_deg) * 6_371_000.0
    east = math.radians(last.longitude_deg - first.longitude_deg) * 6_378_137.0 * math.cos(latitude)
    goal = truth[2 * last.seq]
    assert math.hypot(east - goal.east_m + truth[0].east_m, north - goal.north_m + truth[0].north_m) < 5.0
    for fix in fixes:
        assert fix.velocity_enu_mps is not None
        assert math.hypot(*fix.velocity_enu_mps[:2]) == pytest.approx(truth[2 * fix.seq].speed_mps, abs=0.4)


def test_bus_frames_decode_to_the_vehicle_state(events: list[WorldEvent]) -> None:
    database = pytest.importorskip("cantools").database.load_string(can.DBC, "dbc")
    states = {e.capture_ns: e.sample for e in events if isinstance(e.sample, VehicleState)}
    frames = [e.sample for e in events if isinstance(e.sample, CanFrame)]
    assert len(frames) == 2 * len(states)
    for frame in frames:
        state, signals = states[frame.stamp_ns], database.decode_message(frame.id, frame.payload)
        if frame.id == can.MOTION_ID:
            assert signals["SPEED"] == pytest.approx(state.speed_mps, abs=1e-9)
            assert signals["YAW_RATE"] == pytest.approx(state.yaw_rate_radps, abs=1e-9)
            assert signals["STEERING_WHEEL_ANGLE"] == pytest.approx(state.steering_wheel_angle_rad, abs=1e-9)
        else:
            wheels = [signals[f"WHEEL_{name}"] for name in ("FL", "FR", "RL", "RR")]
            assert wheels == pytest.approx(state.wheel_speeds_mps, abs=1e-9)
            assert signals["BRAKE"] == pytest.approx(state.brake, abs=1e-9)
