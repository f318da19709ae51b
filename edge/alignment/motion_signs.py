"""What IMU, vehicle bus and GNSS say of the same motion, and which of them is alone with what it says.

The bus knows how fast the vehicle goes and turns; so the IMU's rate about z, its force forward (change of speed), left
(speed x yaw rate) and up (gravity) are known but for vibration, pitch and slopes. GNSS must move as its own velocity
says; its speed and course judge between IMU and bus.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from edge.samples import GnssFix, ImuSample, VehicleState

KINDS: Final = ("stuck", "biased")  # of the IMU
GNSS_KINDS: Final = ("jumping", "frozen")
VEHICLE_KINDS: Final = ("speed", "yaw")
# What may be between IMU and bus: yaw rate (rad/s), force forward, left, up (m/s2). Slopes and pitch are in it.
LIMITS: Final = (0.04, 1.2, 1.0, 0.6)
_GRAVITY_MPS2: Final = 9.81
_FAST_S: Final = 0.4
_SLOW_S: Final = 20.0
_OFFSET: Final = 0.4  # of the limit: what may be learned as the IMU's usual offset
_LONGEST_NS: Final = 500_000_000  # of a gap in the IMU across which samples are compared
_GAP_NS: Final = 2_000_000_000
_UNFELT: Final = -(1 << 62)
_METRES_PER_RAD: Final = 6_371_000.0
_MOVING_MPS: Final = 2.0
_TURNING_MPS: Final = 4.0  # from which a course means something
_PLACE_FAST_S: Final = 0.3
_PLACE_SLOW_S: Final = 1.5
_SPEED_S: Final = 0.7
# Beyond these a number says no more, and would take long to be forgotten.
_FARTHEST_M: Final = 200.0
_MOST_LIMITS: Final = 20.0
_MOST_RADPS: Final = 5.0
_MOST_MPS: Final = 30.0
_MOST_S: Final = 60.0


class MotionSigns:
    """What successive moments say of IMU, GNSS and bus. All attributes are state.

    Attributes:
        imu: seconds without any change of a sample; by how many limits it is off.
        gnss: metres between where the fixes are and where their velocity leads; seconds that it stood while driving.
        vehicle: m/s between bus and GNSS; rad/s between the bus's yaw rate and GNSS's course where the IMU sides with
            GNSS.
    """

    def __init__(self) -> None:
        self.imu = [0.0] * len(KINDS)
        self.gnss = [0.0] * len(GNSS_KINDS)
        self.vehicle = [0.0] * len(VEHICLE_KINDS)
        self._sample: ImuSample | None = None
        self._off = [0.0] * len(LIMITS)
        self._usual = [0.0] * len(LIMITS)
        self._speed_mps = math.nan
        self._fix: GnssFix | None = None
        self._period_ns = 0  # between fixes
        self._strayed_fast_m = [0.0, 0.0]  # east, north
        self._strayed_slow_m = [0.0, 0.0]
        self._strayed_m = [0.0, 0.0]
        self._speed_off = 0.0
        self._turn = self._bus_turn = self._course_turn = 0.0  # rad/s of IMU, bus and GNSS, smoothed alike

    def feel(
        self,
        elapsed_s: float,
        imu: Sequence[ImuSample],
        vehicle: Sequence[VehicleState],
        gnss: Sequence[GnssFix],
        suspected: bool,
    ) -> None:
        """Take a moment's samples; each may be empty.

        Args:
            imu: a window; only what is new in it counts.
            suspected: the IMU is, so its usual offset is not learned.
        """
        state = vehicle[-1] if vehicle and math.isfinite(vehicle[-1].speed_mps) else None
        fresh = self._fresh(imu)
        if fresh:
            self._compare(elapsed_s, fresh, state, suspected)
        elif not imu:
            self.imu[:] = 0.0, 0.0
            self._off[:] = [0.0] * len(LIMITS)
        self._speed_mps = state.speed_mps if state else math.nan
        if gnss:
            self._locate(gnss[-1], state)
        else:
            self._lose_place()

    def _fresh(self, imu: Sequence[ImuSample]) -> Sequence[ImuSample]:
        """The samples of a window that were not there before."""
        if not imu:
            return ()
        last_ns = self._sample.stamp_ns if self._sample else _UNFELT
        if imu[-1].stamp_ns < last_ns - _GAP_NS:
            last_ns = _UNFELT  # the clock stepped back
        first = len(imu)
        while first and imu[first - 1].stamp_ns > last_ns:
            first -= 1
        return imu[first:] if self._sample else imu[-1:]

    def _compare(
        self, elapsed_s: float, fresh: Sequence[ImuSample], state: VehicleState | None, suspected: bool
    ) -> None:
        forward = left = up = turn = 0.0
        last = self._sample
        for sample in fresh:
            if last is not None:
                gap_ns = sample.stamp_ns - last.stamp_ns
                same = sample[2:] == last[2:] and 0 < gap_ns < _LONGEST_NS
                self.imu[0] = min(self.imu[0] + gap_ns * 1e-9, _MOST_S) if same else 0.0
            x, y, z = sample.accel_mps2
            forward, left, up, turn = forward + x, left + y, up + z, turn + sample.gyro_radps[2]
            last = sample
        self._sample = last
        part = 1.0 / len(fresh)
        off = [0.0, 0.0, 0.0, up * part - _GRAVITY_MPS2]
        if state is not None:
            if elapsed_s > 0.0 and not math.isnan(self._speed_mps):
                off[1] = forward * part - (state.speed_mps - self._speed_mps) / elapsed_s
            if state.yaw_rate_radps is not None:
                off[0] = turn * part - state.yaw_rate_radps
                off[2] = left * part - state.speed_mps * state.yaw_rate_radps
        fast, slow = elapsed_s / (_FAST_S + elapsed_s), 0.0 if suspected else elapsed_s / (_SLOW_S + elapsed_s)
        worst = 0.0
        for i, limit in enumerate(LIMITS):
            if not math.isfinite(off[i]):
                continue
            self._off[i] += fast * (_within(off[i], _MOST_LIMITS * limit) - self._off[i])
            most = _OFFSET * limit
            self._usual[i] = min(max(self._usual[i] + slow * (self._off[i] - self._usual[i]), -most), most)
            worst = max(worst, abs(self._off[i] - self._usual[i]) / limit)
        turned = elapsed_s / (_SPEED_S + elapsed_s)
        if math.isfinite(turn):
            self._turn += turned * (_within(turn * part, _MOST_RADPS) - self._turn)
        if state is not None and state.yaw_rate_radps is not None and math.isfinite(state.yaw_rate_radps):
            self._bus_turn += turned * (_within(state.yaw_rate_radps, _MOST_RADPS) - self._bus_turn)
        alone = self.vehicle[1] > 0.0 and abs(self._off[0]) > LIMITS[0]  # the bus is, with its yaw rate
        self.imu[1] = 0.0 if alone else worst

    def _locate(self, fix: GnssFix, state: VehicleState | None) -> None:
        last, self._fix = self._fix, fix
        if last is None:
            return
        passed_ns, passed = fix.stamp_ns - last.stamp_ns, fix.seq - last.seq
        if passed_ns == 0 and passed == 0:
            return
        velocity, before = fix.velocity_enu_mps, last.velocity_enu_mps
        if passed_ns <= 0 or passed <= 0 or velocity is None or before is None:
            return
        if not all(map(math.isfinite, (*velocity, *before, *fix[2:4], *last[2:4]))):
            return
        period_ns = passed_ns // passed
        usual_ns, self._period_ns = self._period_ns or period_ns, period_ns
        if not 0.6 * usual_ns < period_ns < 1.6 * usual_ns or passed_ns > _GAP_NS:
            return  # a tunnel, or the clock stepped: what lies between is not known
        seconds = passed_ns * 1e-9
        along = _METRES_PER_RAD * math.cos(math.radians(fix.latitude_deg))
        east = math.radians(fix.longitude_deg - last.longitude_deg) * along
        north = math.radians(fix.latitude_deg - last.latitude_deg) * _METRES_PER_RAD
        strayed = (
            _within(east - 0.5 * (velocity[0] + before[0]) * seconds, _FARTHEST_M),
            _within(north - 0.5 * (velocity[1] + before[1]) * seconds, _FARTHEST_M),
        )
        fast, slow = seconds / (_PLACE_FAST_S + seconds), seconds / (_PLACE_SLOW_S + seconds)
        away = []
        for i in range(2):  # kept about the slow mean, so that nothing grows without end
            at = self._strayed_m[i] + strayed[i] - self._strayed_slow_m[i]
            self._strayed_fast_m[i] -= self._strayed_slow_m[i]
            self._strayed_fast_m[i] += fast * (at - self._strayed_fast_m[i])
            self._strayed_slow_m[i] = slow * at
            self._strayed_m[i] = at
            away.append(self._strayed_fast_m[i] - self._strayed_slow_m[i])
        self.gnss[0] = math.hypot(*away)
        moving = state is not None and state.speed_mps > _MOVING_MPS
        stood = moving and east == 0.0 and north == 0.0
        self.gnss[1] = min(self.gnss[1] + seconds, _MOST_S) if stood else 0.0
        if state is not None:
            self._judge(velocity, before, seconds, state)

    def _judge(
        self,
        velocity: tuple[float, float, float],
        before: tuple[float, float, float],
        seconds: float,
        state: VehicleState,
    ) -> None:
        """Compare the bus with GNSS, which says in two ways how it moves."""
        part = seconds / (_SPEED_S + seconds)
        speed_mps = math.hypot(velocity[0], velocity[1])
        self._speed_off += part * (_within(speed_mps - state.speed_mps, _MOST_MPS) - self._speed_off)
        trusted = self.gnss[0] < 0.5
        self.vehicle[0] = abs(self._speed_off) if trusted else 0.0
        course = math.atan2(velocity[1], velocity[0]) - math.atan2(before[1], before[0])
        course = math.atan2(math.sin(course), math.cos(course)) / seconds
        if min(speed_mps, state.speed_mps) < _TURNING_MPS or state.yaw_rate_radps is None:
            self._course_turn, self.vehicle[1] = self._bus_turn, 0.0
            return
        self._course_turn += part * (course - self._course_turn)
        bus_off, imu_off = abs(self._course_turn - self._bus_turn), abs(self._course_turn - self._turn)
        self.vehicle[1] = bus_off if trusted and imu_off < 0.5 * bus_off and self._sample else 0.0

    def _lose_place(self) -> None:
        self._fix = None
        self.gnss[:] = 0.0, 0.0
        self.vehicle[:] = 0.0, 0.0
        for place in (self._strayed_m, self._strayed_fast_m, self._strayed_slow_m):
            place[:] = 0.0, 0.0
        self._speed_off, self._course_turn = 0.0, self._bus_turn


def _within(value: float, most: float) -> float:
    return min(max(value, -most), most)
