"""The vehicle bus: two frames at 50 Hz, their DBC, and the quantisation that both stand for."""

from __future__ import annotations

import struct

from edge.samples import CanFrame, VehicleState

MOTION_ID, WHEELS_ID = 0x120, 0x130

DBC = """VERSION ""
NS_ :
BS_:
BU_: CHASSIS
BO_ 288 MOTION: 8 CHASSIS
 SG_ SPEED : 0|16@1+ (0.005,0) [0|300] "m/s" Vector__XXX
 SG_ YAW_RATE : 16|16@1- (0.0001,0) [-3.2|3.2] "rad/s" Vector__XXX
 SG_ ACCELERATION : 32|16@1- (0.001,0) [-32|32] "m/s2" Vector__XXX
 SG_ STEERING_WHEEL_ANGLE : 48|16@1- (0.0005,0) [-16|16] "rad" Vector__XXX
BO_ 304 WHEELS: 8 CHASSIS
 SG_ WHEEL_FL : 0|12@1+ (0.02,0) [0|81] "m/s" Vector__XXX
 SG_ WHEEL_FR : 12|12@1+ (0.02,0) [0|81] "m/s" Vector__XXX
 SG_ WHEEL_RL : 24|12@1+ (0.02,0) [0|81] "m/s" Vector__XXX
 SG_ WHEEL_RR : 36|12@1+ (0.02,0) [0|81] "m/s" Vector__XXX
 SG_ ACCELERATOR : 48|8@1+ (0.005,0) [0|1] "" Vector__XXX
 SG_ BRAKE : 56|7@1+ (0.01,0) [0|1] "" Vector__XXX
 SG_ DRIVER_IN_CONTROL : 63|1@1+ (1,0) [0|1] "" Vector__XXX
"""


def quantised(state: VehicleState) -> VehicleState:
    """The state as the bus can carry it."""
    wheels = state.wheel_speeds_mps or (0.0, 0.0, 0.0, 0.0)
    return state._replace(
        speed_mps=_count(state.speed_mps, 0.005, 0, 65535) * 0.005,
        yaw_rate_radps=_count(state.yaw_rate_radps or 0.0, 0.0001, -32768, 32767) * 0.0001,
        acceleration_mps2=_count(state.acceleration_mps2 or 0.0, 0.001, -32768, 32767) * 0.001,
        steering_wheel_angle_rad=_count(state.steering_wheel_angle_rad or 0.0, 0.0005, -32768, 32767) * 0.0005,
        accelerator=_count(state.accelerator or 0.0, 0.005, 0, 255) * 0.005,
        brake=_count(state.brake or 0.0, 0.01, 0, 127) * 0.01,
        wheel_speeds_mps=tuple(_count(w, 0.02, 0, 4095) * 0.02 for w in wheels),  # type: ignore[arg-type]
    )


def frames(state: VehicleState, stamp_ns: int, seq: int) -> tuple[CanFrame, CanFrame]:
    """The two bus frames that carry a state."""
    motion = struct.pack(
        "<Hhhh",
        _count(state.speed_mps, 0.005, 0, 65535),
        _count(state.yaw_rate_radps or 0.0, 0.0001, -32768, 32767),
        _count(state.acceleration_mps2 or 0.0, 0.001, -32768, 32767),
        _count(state.steering_wheel_angle_rad or 0.0, 0.0005, -32768, 32767),
    )
    word = 0
    for i, wheel in enumerate(state.wheel_speeds_mps or ()):
        word |= _count(wheel, 0.02, 0, 4095) << (12 * i)
    word |= _count(state.accelerator or 0.0, 0.005, 0, 255) << 48
    word |= _count(state.brake or 0.0, 0.01, 0, 127) << 56
    word |= int(bool(state.driver_in_control)) << 63
    wheels = struct.pack("<Q", word)
    return CanFrame(stamp_ns, seq, 0, MOTION_ID, motion), CanFrame(stamp_ns, seq + 1, 0, WHEELS_ID, wheels)


def _count(value: float, step: float, lowest: int, highest: int) -> int:
    return min(max(round(value / step), lowest), highest)
